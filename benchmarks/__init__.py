"""Measurements: each prints a table and writes its JSON to results/."""
