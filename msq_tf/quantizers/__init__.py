"""From weights and ranges to codes and values."""
