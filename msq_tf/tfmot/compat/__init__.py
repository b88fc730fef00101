"""Repairs of TFMOT and tf_keras, and their imports."""

# First of all: where they are missing, it says what to install.
from msq_tf.tfmot.compat import imports as imports
