"""Checks before a model is converted."""
