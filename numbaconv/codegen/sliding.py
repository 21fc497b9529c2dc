"""Sums of a depthwise tile: a run of taps slides over neighbouring pixels, so each pixel is loaded once for several taps.

A tile is a row of output pixels by a few vectors of channels, multiplied with the weights lane by lane.  The taps of a run meet
pixels one position apart: tap t of output i reads position i + t.  Loading every tap's pixels anew would need two loads
a cycle, of which one crosses a cache line wherever tensors are not aligned; sliding needs less than half of that.

Tiles of planes are the same turned by a right angle: rows of outputs for pixels, neighbouring pixels for channels, kernel columns
for taps; one weight then serves all lanes.
"""

from __future__ import annotations

from typing import NamedTuple

from numbaconv.codegen.lanes import CHANNELS, TURNED, field, pixels_of, turn
from numbaconv.codegen.vector import Vectors, branch_to, counted_loop, i64, load_i64, offset, values_between, values_if

#: A run: byte offsets of its first position and of its first weights, number of taps, how many of them fill whole chunks, and
#: which of its positions is the first inside the input, and the first one beyond.
RUN = 6


class Kernel(NamedTuple):
    """What tiles know of their kernel.

    One of so many `columns`, outputs `hop` positions apart: a run is a whole row of it, whose weights are in registers all at once.
    Or one whose runs are as long as their records say: the weights of a few taps at a time are in registers, or, where runs are
    long, those of `piece` or one less, beside one vector of twice as many pixels.
    """

    columns: int = 0
    hop: int = 1
    piece: int = 0


#: Number 0 serves any kernel.
KERNELS = (
    Kernel(),
    Kernel(1, 1),
    *(Kernel(columns, hop) for columns in (3, 5, 7) for hop in (1, 2)),
    *(Kernel(piece=piece) for piece in (4, 5, 6, 7)),
)
#: What all runs of a tile share: bytes from position to position, and from tap to tap of the weights.
WINDOW = 2


def sliding_sums(
    v: Vectors, spec, a, runs, n_runs, record, panel, first, bordered=False, expansion=None, kernel=KERNELS[0]
) -> list:
    """Emit the sums over `n_runs` run records and return the accumulators, row by row.

    Pixels are read in whole vectors, since a masked load takes a turn of the multipliers.  Up to `spec.chunk` taps have their
    weights in registers at once; those of a "plane" are a single element for all lanes.  Tiles that are `bordered` touch padding:
    they skip positions outside of the input.  `expansion` is where `codegen.lanes.pixels_of` finds channels.
    """
    b = v.builder
    rows, vectors, chunk = spec.rows, spec.vectors, spec.chunk
    columns, hop, piece = kernel
    position, weight = (load_i64(b, record, number) for number in range(WINDOW))
    pixels = pixels_of(v, spec.operation, vectors, record, expansion)
    panel_row = i64(spec.panel_vectors * v.nbytes)

    def tap_weights(pointer) -> list:
        if spec.operation == "plane":
            return [v.splat(v.load_scalar(pointer))] * vectors
        return [v.load(offset(b, pointer, i64(j * v.nbytes))) for j in range(vectors)]

    def inside(number: int, bounds):
        """Whether a position is one of the input, None for always; the padding of a known kernel is no wider than it reaches."""
        if not bounds:
            return None
        if not columns:
            return b.icmp_unsigned("<", b.sub(i64(number), bounds[0]), b.sub(bounds[1], bounds[0]))
        from_first = b.icmp_signed(">=", i64(number), bounds[0]) if number < columns - 1 else None
        if number <= (rows - 1) * hop:
            return from_first
        to_last = b.icmp_signed("<", i64(number), bounds[1])
        return to_last if from_first is None else b.and_(from_first, to_last)

    def slide(taps: int, pixel, start, bounds, weights, sums: list) -> list:
        """Add up so many taps of one channel over the positions that they reach."""
        kept = []
        for _ in range(taps):
            kept.append(tap_weights(weights))
            weights = offset(b, weights, weight)

        def add_position(number: int, here, sums: list) -> list:
            sums, x = list(sums), pixel(here)
            for tap in range(taps):
                row, between = divmod(number - tap, hop)
                if between == 0 and 0 <= row < rows:
                    for j in range(vectors):
                        i = row * vectors + j
                        sums[i] = v.fma(x[j], kept[tap][j], sums[i])
            return sums

        for number in range((rows - 1) * hop + taps):
            sums = values_if(b, inside(number, bounds), sums, lambda s, n=number, at=start: add_position(n, at, s))
            start = offset(b, start, position)
        return sums

    def piece_inside(taps: int, first_tap, run, weights, sums: list) -> list:
        """Add up so many taps over the positions inside of the input alone, which are all that is looked at."""
        start, begin, end = run
        begin, end = b.sub(begin, first_tap), b.sub(end, first_tap)
        begin = b.select(b.icmp_signed(">", begin, i64(0)), begin, i64(0))
        positions = rows + taps - 1
        end = b.select(b.icmp_signed("<", end, i64(positions)), end, i64(positions))

        def some(sums: list) -> list:
            at = offset(b, weights, b.mul(first_tap, weight))
            kept = []
            for _ in range(taps):
                kept.append(tap_weights(at))
                at = offset(b, at, weight)

            def step(number: int):
                def add_position(values: list) -> list:
                    *sums, here = values
                    x = pixels(None)(here)
                    for tap in range(taps):
                        if 0 <= number - tap < rows:
                            sums[number - tap] = v.fma(x[0], kept[tap][0], sums[number - tap])
                    return [*sums, offset(b, here, position)]

                return add_position

            here = offset(b, start, b.mul(b.add(first_tap, begin), position))
            return values_between(b, begin, end, [*sums, here], [step(number) for number in range(positions)])[:-1]

        return values_if(b, b.icmp_signed("<", begin, end), sums, some)

    def each_channel(weights, sums, body):
        """`body(pixel, weights, sums)` for all channels of a group; the order of a sum does not depend on how taps are cut."""
        if spec.operation not in CHANNELS:
            return body(pixels(None), weights, sums)

        def one_channel(channel, sums):
            return body(pixels(channel), offset(b, weights, b.mul(channel, panel_row)), sums)

        return counted_loop(b, i64(0), field(v, record, "channels"), 1, sums, one_channel, "channel")

    def taps_of_run(taps: int, first_tap, run, pixel, weights, sums: list) -> list:
        start, bounds = run
        start = offset(b, start, b.mul(first_tap, position))
        bounds = [b.sub(bound, first_tap) for bound in bounds]
        return slide(taps, pixel, start, bounds, offset(b, weights, b.mul(first_tap, weight)), sums)

    def one_run(weights, number, sums):
        run = offset(b, runs, b.mul(number, i64(8 * RUN)))
        bounds = [load_i64(b, run, number) for number in (4, 5)] if bordered else []
        start, weights = offset(b, a, load_i64(b, run)), offset(b, weights, load_i64(b, run, 1))
        if columns:
            return each_channel(weights, sums, lambda pixel, at, s: slide(columns, pixel, start, bounds, at, s))
        taps, whole = load_i64(b, run, 2), load_i64(b, run, 3)
        if piece:
            here = start, *bounds
            for length, first_tap, last_tap in ((piece, i64(0), whole), (piece - 1, whole, taps)):
                sums = counted_loop(
                    b, first_tap, last_tap, length, sums,
                    lambda tap, s, length=length: piece_inside(length, tap, here, weights, s), "piece",
                )  # fmt: skip
            return sums

        def all_taps(pixel, weights, sums):
            here = (start, bounds), pixel, weights
            sums = counted_loop(b, i64(0), whole, chunk, sums, lambda t, s: taps_of_run(chunk, t, *here, s), "taps")
            rest = [lambda s, n=n: taps_of_run(n, whole, *here, s) for n in range(1, chunk)]
            return _one_of(b, b.sub(taps, whole), sums, rest)

        return each_channel(weights, sums, all_taps)

    def all_runs(weights, sums):
        return counted_loop(b, i64(0), n_runs, 1, sums, lambda number, s: one_run(weights, number, s), "run")

    group = TURNED.get(spec.operation, 1)
    if group == 1:
        return all_runs(panel, first)

    # turned as often as there are channels, sums come back to where they belong, and so does the bias
    def one_pass(number, sums):
        return all_runs(offset(b, panel, b.mul(number, panel_row)), [turn(v, value, group) for value in sums])

    return counted_loop(b, i64(0), i64(group), 1, first, one_pass, "pass")


def _one_of(builder, number, values: list, cases: list) -> list:
    """`cases[number - 1](values)`, or the values as they are where the number is 0."""
    incoming = []

    def case(emit):
        def run():
            new = emit(values)
            incoming.append((builder.block, new))

        return run

    branch_to(builder, number, [case(list), *map(case, cases)])
    results = [builder.phi(value.type) for value in values]
    for block, new in incoming:
        for phi, value in zip(results, new, strict=True):
            phi.add_incoming(value, block)
    return results
