"""How well a model answers what records ask."""
