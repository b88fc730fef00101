"""Samples that a file is made and checked with."""
