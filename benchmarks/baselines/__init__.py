"""Bit-level methods that MSQ is compared with, written anew for Keras 3."""
