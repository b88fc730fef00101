"""The folder of a run: its lock, its files, and checks of them."""
