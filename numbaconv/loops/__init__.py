"""Compiled loop nests: the GEMM core, packing, tap tables, layout changes.  They know tiles, not algorithms."""
