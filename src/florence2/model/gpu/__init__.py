"""What runs on GPUs alone: kernels for a decoder step of few rows."""
