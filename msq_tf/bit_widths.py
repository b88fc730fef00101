"""The widths that a weight may have."""

MIN_BITS = 2
MAX_BITS = 8
