"""Measures operators on this processor, and predicts files from a table."""
