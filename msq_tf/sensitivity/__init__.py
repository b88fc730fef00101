"""What a narrower width costs."""
