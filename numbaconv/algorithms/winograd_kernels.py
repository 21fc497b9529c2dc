"""Winograd's kernels, transformed once when a layer's weights are packed: n^2 / r^2 times their memory, and no time later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbaconv.codegen.cook_toom import transforms
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.workspace import aligned


@dataclass(frozen=True)
class TransformedKernels:
    """Packs weights for F(m_h, r_h) by F(m_w, r_w) over a stride's phases: (groups, positions, panels, summed phases c_in, NR).

    What is `summed` are the slices of the kernel, or `pieces` of its rows.

    G w G^T is computed in float64 and rounded once.
    """

    m_h: int
    m_w: int
    stride_h: int
    stride_w: int
    kernel: tuple[int, int, int]
    pieces: int

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        c_out, c_in = weight.shape[0] // groups, weight.shape[1]
        k_d, k_h, k_w = self.kernel
        weight = weight.reshape(*weight.shape[:2], *self.kernel)
        r_h, r_w = -(-k_h // self.stride_h), -(-k_w // self.stride_w)
        if self.pieces > 1:
            r_w = self.m_w
        summed = k_d * self.pieces
        kernel = np.kron(kernel_matrix(self.m_h, r_h), kernel_matrix(self.m_w, r_w))
        columns = PANEL_ROW // weight.itemsize
        panels, k = -(-c_out // columns), summed * self.stride_h * self.stride_w * c_in
        shape = (groups, len(kernel), panels, k, columns)
        packed = aligned(int(np.prod(shape)) * weight.itemsize).view(weight.dtype).reshape(shape)
        padded = np.zeros((columns, c_in, k_d, r_h * self.stride_h, self.pieces * r_w * self.stride_w))
        for group in range(groups):
            for panel in range(panels):
                first = group * c_out + panel * columns
                part = weight[first : min(first + columns, (group + 1) * c_out)]
                padded[...] = 0
                padded[: len(part), :, :, :k_h, :k_w] = part
                # (column, channel, slice, tap, phase, piece, tap, phase)
                # -> (slice, piece, phase, phase, channel, tap, tap, column)
                phases = padded.reshape(
                    columns, c_in, k_d, r_h, self.stride_h, self.pieces, r_w, self.stride_w
                ).transpose(2, 5, 4, 7, 1, 3, 6, 0)
                # a small product for each row of the panel, which BLAS leaves to this thread
                packed[group, :, panel] = (kernel @ phases.reshape(k, r_h * r_w, columns)).transpose(1, 0, 2)
        return packed


def kernel_matrix(m: int, r: int) -> np.ndarray:
    """G of F(m, r), in float64."""
    return np.array([[float(x) for x in row] for row in transforms(m, r).kernel])
