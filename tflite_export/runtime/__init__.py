"""Runs TFLite files."""
