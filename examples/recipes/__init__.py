"""Recipes: one kind of model each, from data to a verified file."""
