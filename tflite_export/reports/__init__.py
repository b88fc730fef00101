"""What an export made, to read."""
