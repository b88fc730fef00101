"""A quantized model, whichever Keras it is of."""
