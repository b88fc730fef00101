"""This package beside its peers."""
