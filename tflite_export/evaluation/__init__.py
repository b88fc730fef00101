"""Measures a file on a test set."""
