"""Fast paths for CPUs: compiled kernels, the decoder step, packed and quantized layers."""
