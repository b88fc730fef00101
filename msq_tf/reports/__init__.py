"""Reports on a search, to read and to look at."""
