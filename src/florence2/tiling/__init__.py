"""Tiles: a large picture asked about in overlapping parts, and the answers made one again.

``tiles`` cuts, ``tasks`` says which tasks make sense in parts, ``merging`` makes one result of the parts' results. No torch, no model.
"""
