"""Repairs of TFMOT and tf_keras, and their imports."""
