"""Predicts what a model takes on a device, at every width of its weights."""
