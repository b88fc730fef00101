"""Exported files: sizes, speed, and which models have one."""
