"""Proves which tensor of a file holds which codes."""
