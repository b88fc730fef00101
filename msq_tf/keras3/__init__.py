"""The front end for Keras 3."""
