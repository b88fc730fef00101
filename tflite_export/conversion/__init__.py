"""From a Keras model to a float file."""
