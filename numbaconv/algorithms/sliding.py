"""What the algorithms on depthwise tiles share: lanes are output channels, and runs of taps slide over neighbouring pixels.

    cycles = lines x tiles across x panels: (START + turns m v / FMA + runs (RUN_START turns + x (step + CHANNEL)))
           + what comes from beyond the L2 (`cost.far_cycles`)
           + what the algorithm adds (expanding the input)
    step   = max((t m v + blends) / FMA, loads / LOADS, t LATENCY) + t v FROM_L2, where panels do not stay in the L1

t taps of a run that meet the input, x channels of a group, m pixels and v vectors a tile; turned sums take as many turns as a
group has channels.  A step loads the weights of t taps and m + t - 1 pixels, each of which is a blend of two where a vector has
two groups; where several channels are read at the same places, it loads these places, too.  A run that is taken in pieces loads
little: its step is t m / FMA + PIECE for each of them.  A run of one channel that is taken a few taps at a time takes CHUNK for all
but the first of these.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.sliding_blocks import (
    even,
    line_block,
    lines_in_order,
    panels_abreast,
    run_bytes,
    strip_fields,
)
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import pack_columns, pack_turned
from numbaconv.codegen.expand import COPY, TOGETHER, permutes
from numbaconv.codegen.lanes import CHANNELS, TURNED
from numbaconv.codegen.sliding import KERNELS, Kernel
from numbaconv.codegen.target import TARGETS, target
from numbaconv.loops.gemm import NV, PANEL_ROW, core_address
from numbaconv.loops.grouped import grouped_share
from numbaconv.loops.sliding import PIXELS, SLIDE_BYTES, TALL, sliding_core
from numbaconv.machine import Machine

#: Starting a tile and storing it; starting a run of taps, and one of its pieces, and a chunk of it that is not the first; one
#: channel of several.  Those of long runs are measured with 13 to 31 columns.
START, RUN_START, PIECE, CHUNK, CHANNEL = 50.0, 5.0, 12.0, 18.0, 4.0
#: Cycles that multiplications do not hide of a vector of weights from the L2, where the L1 does not keep a panel of several
#: channels from tile to tile; measured with 128 taps of 48 channels.
_FROM_L2 = 1.6
#: Tiles of a signal that follow one another.
TILES = 8
#: Kernels of so many columns read the sides of the image in place instead of a padded copy.
_FEW_TAPS = 7
#: How many times as wide as the image kernels are at most whose runs are taken in pieces, none of whose taps is left out.
_WIDEST = 8
#: Columns from position to position beyond which at most one of them meets any image.
_FAR = 1 << 40


class SlidingAlgorithm(TiledAlgorithm):
    """To the loops all groups are one: `c_out` columns, and `c_in` channels that each of them reads."""

    head_bytes = SLIDE_BYTES
    padding_modes = False
    share = grouped_share

    def operation(self, g: dict[str, int]) -> str:
        """Which tiles compute it: one of `codegen.lanes.SLIDING`."""
        raise NotImplementedError

    def functions(self, g, np_dtype):
        return {"core": core_address(sliding_core(self.operation(g), g["kernel"]), np_dtype)}

    def operands(self, weights, g):
        pack = pack_turned if TURNED.get(self.operation(g), 1) > 1 else pack_columns
        return {"panels": weights.form(pack), "bias": weights.flat_bias}

    def tables(self, g, cut):
        return {"tables": expansions(g, self.operation(g))}

    def shares(self, g):
        return g["n"] * g["d_out"] * g["h_out"], g["panels_per_group"]

    def zeros(self, g):
        """None: tiles skip padding, and strips hold it."""
        return 0

    def far_cycles(self, g, machine):
        """Images follow one another: weights come once each."""
        return cost.far_cycles(g, machine, cost.weights_read(g, g["panels_per_group"]), 1, g["n"])

    def least_seconds(self, problem, machine):
        """Tiles as wide as they can be, whose runs begin with every tap that a pixel meets in the first column of the kernel."""
        g, target = fields_of(problem), TARGETS[machine.isa]
        vectors = g["n"] * g["out_pixels"] * g["groups"] * g["c_out"] * g["itemsize"] / target.vector_bytes
        rows = cost.slices_met(g) * cost.rows_met(g)
        taps = rows * cost.columns_met(g)
        tile = START + RUN_START * taps / g["k_w"] + self.least_channels(g, rows)
        cycles = vectors * (tile / target.vectors / target.pixels + taps * g["c_in"] / cost.FMA)
        cycles += cost.far_cycles(g, machine, 0, 1, 1) + self.least_beside(g)
        return cycles / machine.rates.clock

    def least_channels(self, g: dict[str, int], rows: float) -> float:
        """Cycles that a tile takes at the least for runs of several channels, of which it has so many rows."""
        return 0.0

    def least_beside(self, g: dict[str, int]) -> float:
        """The same of what comes beside tiles."""
        return 0.0

    def gemm_cycles(self, g, machine):
        target, known = TARGETS[machine.isa], KERNELS[g["kernel"]]
        vectors = -(-g["c_out"] * g["itemsize"] // target.vector_bytes)
        tiles = -(-g["w_out"] // (g["out_step"] * g["pixels"])) * g["out_step"] if g["w_out"] else 0
        height = g["w_out"] / max(tiles, 1)
        rows = cost.slices_met(g) * cost.rows_met(g)
        operation, runs = self.operation(g), rows * g["phases"]
        if known.piece:
            pieces = -(-g["k_w"] // (g["phases"] * known.piece))
            run = RUN_START + pieces * PIECE + cost.columns_met(g) / g["phases"] * height / cost.FMA
            return g["n"] * g["d_out"] * g["h_out"] * tiles * vectors * (START + runs * run)
        taps = min(g["k_w"], cost.columns_met(g) + max(height - 1, 0))
        turns = TURNED.get(operation, 1)
        several = operation in CHANNELS
        elements = 2 if operation == "blended" else 1
        taps /= g["phases"]
        positions = (height - 1) * known.hop + taps
        # runs of several channels and of signals were measured with what comes later
        chunked = known == KERNELS[0] and g["c_in"] == 1 and taps > 0 and not _is_signal(g)
        later = -(-taps // target.chunk) - 1 if chunked else 0

        fetched = _FROM_L2 if g["c_in"] > 1 and g["panel_bytes"] > 2 * machine.l1 else 0.0

        def cycles_of(width):
            blends = positions * width * (elements - 1)
            loads = taps * width + positions * (elements * width + several)
            step = max((taps * height * width + blends) / cost.FMA, loads / cost.LOADS, taps * cost.LATENCY)
            step += taps * width * fetched
            turning = turns * height * width / cost.FMA if turns > 1 else 0.0
            channel = step + CHANNEL * several + CHUNK * later
            return START + turning + runs * (RUN_START * turns + g["c_in"] * channel)

        full, single = divmod(vectors, target.vectors)
        cycles = (full * cycles_of(target.vectors) if full else 0.0) + (single * cycles_of(1) if single else 0.0)
        return g["n"] * g["d_out"] * g["h_out"] * tiles * cycles


def cut_in_place(g: dict[str, int], machine: Machine, fields: dict[str, int]) -> Cut:
    """A cut whose tiles read the input where it lies, so many panels on the way down as `panels_abreast` tells."""
    block = even(max(1, panels_abreast(g, machine, fields)), fields["panels_per_group"])
    fields |= {"read_in_place": 1, "column_block": block}
    if "bordered" in fields:
        return Cut(fields | {"tile_block": 1}, run_bytes(g | fields))
    # with few taps a strip costs more to copy than rows that lie far apart in the L1
    fields |= {"own_channels": 1, "strip_channels": 1, "bordered": int(g["k_w"] <= _FEW_TAPS or fields["piece"] > 0)}
    strip, nbytes = strip_fields(g | fields, machine, 1, machine.l1 // 2)
    return Cut(fields | strip, nbytes)


def sliding_fields(g: dict[str, int], machine: Machine, tiles: int, *, in_pieces: bool = False) -> dict[str, int]:
    """Fields of the `CONV` record that take stride and dilation of the columns apart; see `loops.sliding`.

    Stretches have so many `tiles` at most; see `stretch`.  Long runs of taps may be taken `in_pieces`.
    """
    common = gcd(g["stride_w"], g["dilation_w"])
    hop = g["stride_w"] // common
    columns = g["groups"] * g["c_out"]
    kernel = _kernel(g, hop, in_pieces)
    known = KERNELS[kernel]
    # the tiles of a kernel that is known take its phases together
    apart = 1 if known.columns else hop
    pixels = TALL if known.piece else PIXELS
    lines = line_block(g, machine, known.piece > 0)
    loaded = lines_in_order(g, machine, pixels, lines)
    return {
        "kernel": kernel,
        "piece": known.piece,
        "pixels": pixels,
        "groups": 1,
        "group_out": g["c_out"],
        "c_out": columns,
        "panels_per_group": -(-columns * g["itemsize"] // PANEL_ROW),
        "panel_bytes": g["window"] * g["c_in"] * PANEL_ROW,
        "hop": apart,
        "phases": min(apart, g["k_w"]),
        "step": min(apart * g["dilation_w"], _FAR),
        "stretch": stretch(g, pixels, tiles),
        "out_step": g["dilation_w"] // common,
        "lines": g["d_out"] * g["h_out"],
        "line": g["w_out"],
        "tiles_per_line": 1,
        "line_block": loaded or lines,
        "fetch": int(loaded > 0),
    }


def stretch(g: dict[str, int], pixels: int, tiles: int) -> int:
    """Outputs of a stretch: up to so many tiles of a signal follow one another in it; of an image, whose lines do, it has one."""
    return pixels * tiles if _is_signal(g) else pixels


def _is_signal(g: dict[str, int]) -> bool:
    """Whether all outputs of an image are one row that one row of the input makes."""
    return g["d_out"] * g["h_out"] * g["k_d"] * g["k_h"] == 1 and g["pad_front"] == g["pad_top"] == 0


def _kernel(g: dict[str, int], hop: int, in_pieces: bool) -> int:
    """Number in `KERNELS` of what tiles know of a kernel, outputs `hop` positions apart: its columns, if registers hold their
    weights and padding is as wide as it reaches; or in how large pieces they take its long runs.
    """
    reach = (g["k_w"] - 1) * g["dilation_w"]
    beyond = (g["w_out"] - 1) * g["stride_w"] + reach - g["pad_left"] - (g["w_in"] - 1)
    held = g["k_w"] < target().pixels
    if (g["k_w"], hop, 0) in KERNELS and held and max(g["pad_left"], beyond) <= reach:
        return KERNELS.index(Kernel(g["k_w"], hop))
    # a signal's weights stay in the L1 and its tiles have one run: pieces gain nothing there
    long_runs = in_pieces and not _is_signal(g) and g["k_w"] > _FEW_TAPS * hop
    if long_runs and reach <= _WIDEST * g["w_in"]:
        return KERNELS.index(Kernel(piece=_piece(g["k_w"], hop)))
    return 0


def _piece(k_w: int, hop: int) -> int:
    """As many taps as registers hold, or less, such that pieces of so many and of one less make up the runs of all phases."""
    runs = {k_w // hop, -(-k_w // hop)}
    return next(
        piece for piece in range(target().piece, 0, -1) if all(-(-run // piece) * (piece - 1) <= run for run in runs)
    )


def expansions(g: dict[str, int], operation: str) -> np.ndarray:
    """How each vector of output channels finds the channels of its groups: `EXPANSION` records with indices."""
    size, width = g["itemsize"], PANEL_ROW // NV // g["itemsize"]
    group_in, group_out = (1, 1) if operation in TURNED else (g["c_in"], g["group_out"])
    channels = np.arange(g["panels_per_group"] * NV * width).reshape(-1, width)
    # lanes beyond the last channel read what it reads
    start = np.minimum(channels, g["c_out"] - 1) // group_out * group_in
    first = start[:, :1]
    spread = start[:, -1] - first[:, 0]
    together = np.where(spread + TOGETHER <= 2 * width, TOGETHER, spread < 2 * width) * permutes(target().isa, size)
    if group_in == group_out == 1:
        together = np.full_like(together, COPY)
    head = np.stack([first[:, 0] * size, g["c_out"] // group_out * group_in - first[:, 0], together, spread * size], 1)
    index = (start - first).astype(f"i{size}")
    return np.concatenate([head.astype(np.int64).view(np.uint8), index.view(np.uint8)], 1)
