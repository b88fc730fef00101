"""Reports on an export, to read."""
