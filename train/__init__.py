"""The command line: `python -m train`, from data to verified files."""
