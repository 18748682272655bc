"""Tiles: a large picture asked about in overlapping parts, and the answers made one again."""
