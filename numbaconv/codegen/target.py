"""What the code generator knows of an instruction set: one row a machine, nothing else about hardware.

Tiles of 32 registers leave room for two pairs of B vectors, since LLVM likes to load the next pair early; 14 x 2 tiles are
2 % slower and come close to spilling.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from numbaconv.machine import machine


@dataclass(frozen=True)
class Target:
    """One instruction set: bytes a vector; rows and vectors of the largest dense tile; rows of dense tiles that span two panels
    (0: none do); pixels of the largest depthwise tile of as many vectors and taps whose weights it keeps in registers; the same of
    one that is one vector wide; whether it has fused multiply-add; sums of tiles so small that they ask ahead for weights; bytes of
    rows that come from memory from which on hardware sees the next one coming (0: it never does)."""

    isa: str
    vector_bytes: int
    rows: int
    vectors: int
    wide_rows: int
    pixels: int
    chunk: int
    tall: int
    piece: int
    fma: bool
    hidden: int = 8
    followed: int = 0

    def lanes(self, itemsize: int) -> int:
        """Elements of `itemsize` bytes in one vector."""
        return self.vector_bytes // itemsize

    def columns(self, itemsize: int) -> int:
        """Width of a packed panel of weights, in elements."""
        return self.vectors * self.lanes(itemsize)


TARGETS = {
    target.isa: target
    for target in (
        Target("avx512", 64, rows=12, vectors=2, wide_rows=6, pixels=8, chunk=3, tall=16, piece=7, fma=True),
        Target("avx2", 32, rows=6, vectors=2, wide_rows=0, pixels=4, chunk=2, tall=8, piece=5, fma=True),
        Target("neon", 16, rows=12, vectors=2, wide_rows=0, pixels=8, chunk=3, tall=16, piece=7, fma=True),
        Target("generic", 16, rows=6, vectors=2, wide_rows=0, pixels=4, chunk=2, tall=8, piece=5, fma=False),
    )
}


@functools.cache
def target() -> Target:
    """The row of the machine that Numba generates code for."""
    row = TARGETS[machine().isa]
    # weights come to these in time, and asking for them costs 5 to 30 %; asking for longer rows costs 5
    return replace(row, hidden=0, followed=640) if machine().cpu.startswith("znver") else row
