"""What a search did, to read and to look at."""
