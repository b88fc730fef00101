"""Kills, lost workers and hostile files."""
