"""Winograd convolution: F(m, r) down and across, 2 to 5 times fewer multiplications than the definition asks for.

Wins on kernels of 3 and more taps with enough channels, unless the transformed weights are too large for the time that the
image takes.  Weights that come from memory may come as they are, a fraction of the bytes, and be transformed on the way, which
pays with few blocks of tiles.  A dilated kernel is an ordinary one on interleaved sets of pixels; a strided one is the sum of
ordinary ones over the phases of its stride, that of a volume the sum over its slices, and a wide one that over pieces of m taps.
"""

from __future__ import annotations

from math import prod

from numbaconv.algorithms import cost, winograd_cost
from numbaconv.algorithms.geometry import folded
from numbaconv.algorithms.transformed import Transformed, pixel_tables, rounding
from numbaconv.algorithms.winograd_blocks import WORKSPACE_LIMIT, dilations
from numbaconv.algorithms.winograd_form import Form, form, refusal
from numbaconv.algorithms.winograd_kernels import TransformedKernels
from numbaconv.loops.transforms import transform_address


class Winograd(Transformed):
    """F(m x m, r x r), with r the taps a phase of the stride has; an axis without taps to save keeps one output a tile."""

    name = "winograd"
    floors = (winograd_cost.least_seconds, winograd_cost.least_of_all)

    def __init__(self, m: int, forms: tuple[bool, ...] = (True, False)):
        """`forms` of the weights are chosen from: kernels that are transformed when they are packed (True), or as they are."""
        self.m, self._forms = m, forms
        # kernels as they are may be new in each call
        self.repacked = True not in forms

    def variant(self, problem):
        """The sizes of F."""
        problem = folded(problem)
        outputs, taps = (
            "x".join(map(str, sizes)) for sizes in zip(*form(self.m, problem.kernel, problem.stride).sizes)
        )
        return f"F({outputs}, {taps})"

    def rms_error(self, problem):
        """`transformed.rounding` of a sum of K products, amplified down and across."""
        problem = folded(problem)
        sizes = form(self.m, problem.kernel, problem.stride)
        k = problem.c_in // problem.groups * prod(problem.stride[-2:]) * prod(problem.kernel[:-2]) * sizes.pieces
        return rounding(problem, k, sizes.amplification)

    def unsupported(self, problem, epilogue, machine):
        problem = folded(problem)
        return refusal(self.m, problem.kernel, problem.stride, problem.dilation, problem.groups > 1)

    def cut(self, g, machine):
        # from a cache, all positions come faster than they can be transformed
        forms = self._forms[:1] if machine.weights_kept else self._forms
        first, *others = (self.blocks(g, machine, transformed) for transformed in forms)
        if not others:
            return first

        def cost_of(cut):
            fields = g | cut.fields
            cycles = self.gemm_cycles(fields, machine) + self.far_cycles(fields, machine)
            return self.head_bytes + cut.workspace_bytes > WORKSPACE_LIMIT, cycles

        return min(first, *others, key=cost_of)

    def tiles(self, g: dict[str, int]) -> dict[str, int]:
        """Sizes of F and the number of tiles along each axis."""
        sizes = self.form_of(g)
        (m_h, r_h), (m_w, r_w) = sizes.sizes
        dilation_h, dilation_w = dilations(g)
        across = -(-g["w_out"] // (dilation_w * m_w))
        fields = {
            "m_h": m_h, "n_h": m_h + r_h - 1, "dilation_h": dilation_h,
            "m_w": m_w, "n_w": m_w + r_w - 1, "dilation_w": dilation_w,
            "tiles_h": dilation_h * -(-g["h_out"] // (dilation_h * m_h)), "tiles_w": dilation_w * across,
            "tile_step": 0,
        }  # fmt: skip
        if sizes.pieces > 1:
            # the tiles of a line are slices, each as far from the next one as a piece of the kernel is
            fields |= {
                "tile_step": m_w * dilation_w, "tiles_w": dilation_w,
                "k_d": sizes.pieces, "d_out": across, "d_in": across + sizes.pieces - 1,
            }  # fmt: skip
        return fields

    def form_of(self, g: dict[str, int]) -> Form:
        return form(self.m, (g["k_h"], g["k_w"]), (g["stride_h"], g["stride_w"]))

    def tables(self, g, cut):
        return pixel_tables(g)

    def operands(self, weights, g):
        if g["kernel_block"]:
            return {"panels": weights.panels, "bias": weights.flat_bias}
        k_d, pieces = (1, g["k_d"]) if g["tile_step"] else (g["k_d"], 1)
        pack = TransformedKernels(g["m_h"], g["m_w"], g["stride_h"], g["stride_w"], (k_d, g["k_h"], g["k_w"]), pieces)
        return {"panels": weights.form(pack), "bias": weights.flat_bias}

    def functions(self, g, np_dtype):
        r_h, r_w = g["n_h"] - g["m_h"] + 1, g["n_w"] - g["m_w"] + 1
        sizes = g["m_h"], r_h, g["m_w"], r_w
        directions = ("input", "kernel", "output") if g["kernel_block"] else ("input", "output")
        return super().functions(g, np_dtype) | {
            f"{direction}_transform": transform_address(direction, sizes, np_dtype) for direction in directions
        }

    def least_seconds(self, problem, machine):
        """Register tiles as high and blocks as large as they can be, a transform of each tile, and weights once a block."""
        if problem.c_in == problem.groups > 1:
            # nothing is summed: to store the products takes longer than other algorithms do in all
            least = cost.least_work(problem, machine)
            return least.pixels * problem.groups * least.stored / machine.rates.clock
        return winograd_cost.least_cycles(problem, machine)[self.m] / machine.rates.clock
