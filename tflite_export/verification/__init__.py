"""Compares numbers before a file is handed over."""
