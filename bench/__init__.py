"""Benchmarks: numbaconv against the other CPU runtimes on the convolution layers of real networks."""
