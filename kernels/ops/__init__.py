"""The room of the GPU kernels. None yet: quantization runs in NumPy and torch, see `semid.quantize`."""
