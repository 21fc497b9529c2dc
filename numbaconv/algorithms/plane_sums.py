"""1x1 convolution of channels-first tensors to few channels: result planes are weighted sums of input planes.

Wins where the input comes from memory, which is then read as fast as it can be.

    cycles = (LOADED planes + (1 / FMA + ADDED) planes results) vectors of pixels / VECTORS, and what waits for memory
"""

from __future__ import annotations

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.codegen.plane_sums import FINISHED
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import VECTOR_BYTES
from numbaconv.loops.plane_sums import plane_sums_share
from numbaconv.problem import ConvProblem

#: Output channels of a group at most: more are multiplied by panels.
_MOST = 16
#: Sums of a stretch take this part of the L1.
_SUMS_PART = 3
#: Cycles for a vector of a plane, and, besides its multiply-add, for each row that it is added to; to finish a vector of results.
#: Fitted where `cost.copying` is 1.
_LOADED, _ADDED, _FINISHED = 0.5, 0.25, 3.0


class PlaneSums(TiledAlgorithm):
    """Stretches of pixels are the unit of work."""

    name = "plane_sums"
    head_bytes = 0
    share = plane_sums_share
    reads_planes = True
    layouts = ("channels_first",)
    floors = ()

    def unsupported(self, problem, epilogue, machine):
        if problem.layout != "channels_first":
            return "planes are those of channels-first tensors"
        if problem.taps != 1 or not _unmoved(problem):
            return "outputs are not made of the pixels at their place alone"
        if problem.c_out // problem.groups > _MOST:
            return f"more than {_MOST} output channels share planes"
        return super().unsupported(problem, epilogue, machine)

    def core(self, dtype):
        """There is none."""
        return 0

    def functions(self, g, np_dtype):
        return {}

    def cut(self, g, machine):
        block = FINISHED * VECTOR_BYTES
        stretch = max(1, machine.l1 // _SUMS_PART // g["c_out"] // block) * block
        pixels = min(stretch // g["itemsize"], max(g["out_pixels"], 1))
        pitch = -(-pixels * g["itemsize"] // block) * block
        fields = {
            "line": pixels,
            "tiles_per_line": -(-g["out_pixels"] // pixels),
            "row_pitch": pitch,
            "patch_pitch": row_pitch((g["c_in"] + 1) * g["itemsize"]),
        }
        return Cut(fields, g["c_out"] * pitch)

    def tables(self, g, cut):
        return {}

    def operands(self, weights, g):
        return {"panels": weights.rows}

    def shares(self, g):
        """Stretches of all images and groups."""
        return g["n"] * g["groups"] * g["tiles_per_line"], 1

    def zeros(self, g):
        """None: rows of weights end with the bias."""
        return 0

    def gemm_cycles(self, g, machine):
        """Loads and multiply-adds of each plane for each row of sums."""
        vectors = -(-g["out_pixels"] // TARGETS[machine.isa].lanes(g["itemsize"]))
        slow = cost.copying(machine.rates)
        added = 1 / cost.FMA + _ADDED * slow
        each = g["c_in"] * (_LOADED * slow + added * g["c_out"]) + _FINISHED * slow * g["c_out"]
        return g["n"] * g["groups"] * vectors * each

    def extra_cycles(self, problem, g, machine):
        """Nothing."""
        return 0.0

    def far_cycles(self, g, machine):
        """Planes are read as the hardware asks for them."""
        x, out = g["n"] * g["in_pixels"] * g["x_pixel"], g["n"] * g["out_pixels"] * g["out_pixel"]
        return cost.waiting_cycles(x + out, cost.FETCHED * x + out, machine) if x + out > machine.l2 / 2 else 0.0

    def least_seconds(self, problem, machine):
        """That of the sums alone."""
        return self.gemm_cycles(fields_of(problem), machine) / machine.rates.clock


def _unmoved(problem: ConvProblem) -> bool:
    """Whether each output pixel is that of the same number."""
    return problem.spatial == problem.out_spatial and all(
        stride == 1 and ends == (0, 0) for stride, ends in zip(problem.stride, problem.padding)
    )
