"""Direct convolution of few output channels: neighbouring outputs stand side by side in one vector, as channels of one output.

The kernel of an output becomes as much wider as they lie apart, and zero where it meets what only the others see.  Wins where
output channels would leave half of a vector empty or more: on the last layers of networks that make images, and on filters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.kernel_rows import KernelRows, rows_are_taps
from numbaconv.algorithms.tiled import Cut
from numbaconv.algorithms.weights import Weights, side_by_side
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES

#: Beyond so many bytes of operands, neighbouring pixels of 1x1 kernels are taken for what comes from memory: as runs of twelve
#: places at once, which takes so many times as long as what comes from beyond the L2.  Measured with 10 to 38 MB.
_FROM_MEMORY, _SLOWER = 6 << 20, 2.5


@dataclass(frozen=True)
class _Pack:
    """Packs panels whose columns are the channels of `outputs` neighbouring outputs, `stride` columns of the input apart."""

    outputs: int
    stride: int

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        return Weights(side_by_side(weight, groups, self.outputs, self.stride), None, groups, own=True).panels


class Abreast(KernelRows):
    """The convolution whose outputs are so many of another one, and whose stride is so much longer."""

    name = "abreast"
    #: a NaN or infinity reaches the outputs beside those whose sums it is part of, times zero
    local = False

    def variant(self, problem):
        """How many outputs stand side by side."""
        return f"{_fields(fields_of(problem))['outputs']} outputs"

    def unsupported(self, problem, epilogue, machine):
        if 2 * problem.c_out * problem.itemsize > VECTOR_BYTES:
            return "no number of neighbouring outputs that divides a row fits a vector"
        g = fields_of(problem)
        fields = _fields(g)
        if fields["outputs"] == 1:
            return "no number of neighbouring outputs that divides a row fits a vector"
        if not rows_are_taps(g | fields):
            return "the pixels under a kernel row do not follow one another"
        return super().unsupported(problem, epilogue, machine)

    def least_seconds(self, problem, machine):
        """No bound is nearer than the estimate, and few problems have so few output channels."""
        return self.estimate(problem, machine).seconds

    def cut(self, g, machine):
        fields = _fields(g)
        cut = super().cut(g | fields, machine)
        return Cut(fields | cut.fields, *cut[1:])

    def far_cycles(self, g, machine):
        """More where kernels of one tap read neighbours from memory."""
        waits = super().far_cycles(g, machine)
        x, out = g["n"] * g["x_image"], g["n"] * g["out_pixels"] * g["out_pixel"]
        column = g["k_w"] - g["stride_w"] + g["stride_w"] // g["outputs"]
        if g["k_d"] * g["k_h"] * column == 1 and x + out > _FROM_MEMORY:
            waits += _SLOWER * x / machine.rates.far_bytes
        return waits

    def operands(self, weights, g):
        outputs, c_out = g["outputs"], g["c_out"] // g["outputs"]
        bias = np.zeros(g["panels_per_group"] * PANEL_ROW // g["itemsize"], weights.dtype)
        bias[: g["c_out"]] = np.tile(weights.flat_bias[0, :c_out], outputs)
        return {"panels": weights.form(_Pack(outputs, g["stride_w"] // outputs)), "bias": bias}


def _fields(g: dict[str, int]) -> dict[str, int]:
    """Fields of the `CONV` record that put as many outputs side by side as a vector holds and a row is a multiple of.

    Results must lie without gaps between pixels; of others each output stays alone.
    """
    pixel = g["c_out"] * g["itemsize"]
    most = VECTOR_BYTES // pixel if g["out_pixel"] == g["residual_pixel"] == pixel else 1
    outputs = next((count for count in range(most, 1, -1) if g["w_out"] % count == 0), 1)
    k_w = g["k_w"] + (outputs - 1) * g["stride_w"]
    window = g["k_d"] * g["k_h"] * k_w
    fields = {"outputs": outputs, "k_w": k_w, "window": window, "panel_bytes": window * g["c_in"] * PANEL_ROW}
    fields |= {name: g[name] * outputs for name in ("c_out", "stride_w", "out_pixel", "residual_pixel")}
    return fields | {name: g[name] // outputs for name in ("w_out", "out_pixels")}
