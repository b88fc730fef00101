"""The folder of a run: who holds it, what lies there, whether it is whole."""
