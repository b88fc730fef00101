"""Runs a rule during training."""
