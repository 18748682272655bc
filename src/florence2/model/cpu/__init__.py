"""What makes the model fast on processors: compiled kernels and packed weights."""
