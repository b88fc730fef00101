"""Files with integer activations from end to end."""
