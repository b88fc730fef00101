"""Files whose activations are integers from end to end."""
