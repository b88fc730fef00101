"""Files with which a LiteRT program generates text."""
