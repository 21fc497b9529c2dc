"""Sums of a depthwise tile: a run of taps slides over neighbouring pixels, so each pixel is loaded once for several taps.

A tile is a row of output pixels by a few vectors of channels, multiplied with the weights lane by lane.  The taps of a run meet
pixels one position apart: tap t of output i reads position i + t.  Loading every tap's pixels anew would need two loads
a cycle, of which one crosses a cache line wherever tensors are not aligned; sliding needs less than half of that.

Tiles of planes are the same turned by a right angle: rows of outputs for pixels, neighbouring pixels for channels, kernel columns
for taps; one weight then serves all lanes.
"""

from __future__ import annotations

from numbaconv.codegen.vector import Vectors, branch_to, counted_loop, i64, load_i64, offset

#: A run: byte offsets of its first position and of its first weights, number of taps, how many of them fill whole chunks, and
#: which of its positions is the first inside the input, and the first one beyond.
RUN = 6
#: What all runs of a tile share: bytes from position to position, and from tap to tap of the weights.
WINDOW = 2


def sliding_sums(
    v: Vectors, rows: int, vectors: int, chunk: int, one_weight: bool, a, runs, n_runs, window, panel, first, zeros=None
):
    """Emit the sums over `n_runs` run records and return the accumulators, row by row.

    Pixels are read in whole vectors, since a masked load takes a turn of the multipliers.  Up to `chunk` taps have their
    weights in registers at once; with `one_weight` that is a single element for all lanes.  With `zeros`, positions outside of
    the input are read there: for tiles that touch padding.
    """
    b = v.builder
    position, weight = (load_i64(b, window, field) for field in range(WINDOW))

    def pixel(pointer) -> list:
        return [v.load(offset(b, pointer, i64(j * v.nbytes))) for j in range(vectors)]

    def tap_weights(pointer) -> list:
        if one_weight:
            return [v.splat(v.load_scalar(pointer))] * vectors
        return pixel(pointer)

    def slide(taps: int, start, weights, bounds, sums: list) -> list:
        """Taps 0..`taps` of one run over the positions that they reach, of which those within `bounds` are inside."""
        sums, kept = list(sums), []
        for _ in range(taps):
            kept.append(tap_weights(weights))
            weights = offset(b, weights, weight)
        for number in range(rows + taps - 1):
            here = start
            if zeros is not None:
                outside = b.icmp_unsigned(">=", b.sub(i64(number), bounds[0]), b.sub(bounds[1], bounds[0]))
                here = b.select(outside, zeros, start)
            x = pixel(here)
            for tap in range(max(0, number - rows + 1), min(taps, number + 1)):
                for j in range(vectors):
                    i = (number - tap) * vectors + j
                    sums[i] = v.fma(x[j], kept[tap][j], sums[i])
            start = offset(b, start, position)
        return sums

    def at(tap, run):
        start, weights, inside = run
        bounds = [b.sub(bound, tap) for bound in inside]
        return offset(b, start, b.mul(tap, position)), offset(b, weights, b.mul(tap, weight)), bounds

    def one_run(number, sums):
        record = offset(b, runs, b.mul(number, i64(8 * RUN)))
        inside = [] if zeros is None else [load_i64(b, record, field) for field in (4, 5)]
        run = offset(b, a, load_i64(b, record)), offset(b, panel, load_i64(b, record, 1)), inside
        taps = load_i64(b, record, 2)
        whole = load_i64(b, record, 3)
        sums = counted_loop(b, i64(0), whole, chunk, sums, lambda t, s: slide(chunk, *at(t, run), s), "taps")
        rest = b.sub(taps, whole)
        return _one_of(b, rest, sums, [lambda s, n=n: slide(n, *at(whole, run), s) for n in range(1, chunk)])

    return counted_loop(b, i64(0), n_runs, 1, first, one_run, "run")


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
