"""Fast paths for CPUs: compiled kernels, packed and quantized layers."""
