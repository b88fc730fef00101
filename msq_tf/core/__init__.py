"""A quantized model of either Keras."""
