"""Accuracy for bytes, of this package and of others."""
