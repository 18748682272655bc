"""Training: synthetic scenes, the loop, the recipe of the demo model, and how well a model answers."""
