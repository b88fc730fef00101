"""Reads, checks and edits the bytes of TFLite files."""
