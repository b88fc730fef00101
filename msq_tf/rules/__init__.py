"""Which weight loses bits, and when: decided from names, counts and floats."""
