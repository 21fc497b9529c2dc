"""Sums of a depthwise tile: a run of taps slides over neighbouring pixels, so each pixel is loaded once for several taps.

A tile is a row of output pixels by a few vectors of channels, multiplied with the weights lane by lane.  The taps of a run meet
pixels one position apart: tap t of output i reads position i + t.  Loading every tap's pixels anew would need two loads
a cycle, of which one crosses a cache line wherever tensors are not aligned; sliding needs less than half of that.
"""

from __future__ import annotations

from numbaconv.codegen.vector import Vectors, counted_loop, i64, load_i64, offset

#: A run: byte offsets of its first position and of its first weights, number of taps.
RUN = 3
#: What all runs of a tile share: bytes from position to position, and from tap to tap of the weights.
WINDOW = 2


def sliding_sums(v: Vectors, rows: int, vectors: int, chunk: int, a, runs, n_runs, window, panel, columns, first):
    """Emit the sums over `n_runs` run records and return the accumulators, row by row.

    Lanes from `columns` on are not read.  Up to `chunk` taps have their weights in registers at once.
    """
    b = v.builder
    position, weight = (load_i64(b, window, field) for field in range(WINDOW))
    mask = v.first_lanes(b.sub(columns, i64((vectors - 1) * v.lanes)))

    def pixel(pointer) -> list:
        whole = [v.load(offset(b, pointer, i64(j * v.nbytes))) for j in range(vectors - 1)]
        return [*whole, v.masked_load(offset(b, pointer, i64((vectors - 1) * v.nbytes)), mask)]

    def slide(taps: int, start, weights, sums: list) -> list:
        """Taps 0..`taps` of one run over the positions that they reach."""
        sums, kept = list(sums), []
        for _ in range(taps):
            kept.append([v.load(offset(b, weights, i64(j * v.nbytes))) for j in range(vectors)])
            weights = offset(b, weights, weight)
        for number in range(rows + taps - 1):
            x = pixel(start)
            for tap in range(max(0, number - rows + 1), min(taps, number + 1)):
                for j in range(vectors):
                    i = (number - tap) * vectors + j
                    sums[i] = v.fma(x[j], kept[tap][j], sums[i])
            start = offset(b, start, position)
        return sums

    def at(tap, run):
        start, weights = run
        return offset(b, start, b.mul(tap, position)), offset(b, weights, b.mul(tap, weight))

    def one_run(number, sums):
        record = offset(b, runs, b.mul(number, i64(8 * RUN)))
        run = offset(b, a, load_i64(b, record)), offset(b, panel, load_i64(b, record, 1))
        taps = load_i64(b, record, 2)
        rest = b.urem(taps, i64(chunk))
        whole = b.sub(taps, rest)
        sums = counted_loop(b, i64(0), whole, chunk, sums, lambda t, s: slide(chunk, *at(t, run), s), "taps")
        return _switch(b, rest, sums, [lambda s, n=n: slide(n, *at(whole, run), s) for n in range(1, chunk)])

    return counted_loop(b, i64(0), n_runs, 1, first, one_run, "run")


def _switch(builder, number, values: list, cases: list) -> list:
    """`cases[number - 1](values)`, or the values as they are where there is no such case."""
    entry, done = builder.block, builder.append_basic_block("rest.done")
    switch = builder.switch(number, done)
    incoming = [(entry, values)]
    for case, emit in enumerate(cases, 1):
        block = builder.append_basic_block(f"rest.{case}")
        switch.add_case(i64(case), block)
        builder.position_at_end(block)
        new = emit(values)
        incoming.append((builder.block, new))
        builder.branch(done)
    builder.position_at_end(done)
    results = [builder.phi(value.type) for value in values]
    for block, new in incoming:
        for phi, value in zip(results, new, strict=True):
            phi.add_incoming(value, block)
    return results
