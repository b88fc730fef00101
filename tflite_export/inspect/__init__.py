"""Looks at any TFLite file, and at two."""
