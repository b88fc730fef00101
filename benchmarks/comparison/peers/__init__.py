"""Other quantization-aware trainers on the same networks, data and budget."""
