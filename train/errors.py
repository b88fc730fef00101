"""Errors that end a run besides its settings."""


class WorkerLostError(RuntimeError):
    """Another worker of the cluster is gone, or does not answer."""
