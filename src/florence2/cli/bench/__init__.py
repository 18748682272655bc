"""``florence2 bench``: load tests."""
