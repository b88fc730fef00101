"""Show in one page what quantization did to a model."""
