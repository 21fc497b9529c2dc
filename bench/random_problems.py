"""Random problems that could be layers of a network: what selection is judged on beyond the layers it was fitted to."""

import random

from numbaconv.problem import ConvProblem

#: Kernels (k_h, k_w) with how often they are drawn.
KERNELS = {
    (1, 1): 30,
    (3, 3): 36,
    (5, 5): 8,
    (7, 7): 5,
    (1, 3): 3,
    (3, 1): 3,
    (1, 7): 4,
    (7, 1): 4,
    (2, 2): 3,
    (4, 4): 2,
    (9, 9): 2,
}
#: Sides of images, from the last layers of a network to the first.
SIDES = (5, 7, 8, 10, 13, 14, 16, 17, 20, 24, 28, 32, 33, 35, 40, 48, 56, 64, 71, 80, 96, 112, 128, 160, 224)
DILATIONS = (2, 3, 4, 6, 12)
#: Bounds of the multiplications of one problem: from some microseconds to some milliseconds.
FEWEST_MACS, MOST_MACS = 2e5, 6e8
MOST_ELEMENTS = 4_000_000


def random_problems(count: int, seed: int = 0) -> list[ConvProblem]:
    """`count` channels-first problems; the first ones of a longer list with the same seed are the same."""
    source = random.Random(seed)
    problems = []
    while len(problems) < count:
        problem = _draw(source)
        sizes = (problem.n * problem.c_in * problem.spatial[0] * problem.spatial[1], problem.parameters)
        if FEWEST_MACS <= problem.macs <= MOST_MACS and max(sizes) <= MOST_ELEMENTS:
            problems.append(problem)
    return problems


def _draw(source: random.Random) -> ConvProblem:
    kernel = source.choices(tuple(KERNELS), KERNELS.values())[0]
    stride = source.choices((1, 2, 4), (75, 22, 3))[0]
    dilation = source.choice(DILATIONS) if max(kernel) > 1 and stride == 1 and source.random() < 0.12 else 1
    groups, c_in, c_out = _channels(source)
    h_in = source.choice(SIDES)
    w_in = h_in if source.random() < 0.7 else source.choice(SIDES)
    reach = [dilation * (k - 1) for k in kernel]
    padding = [0, 0] if source.random() < 0.15 else [r // 2 for r in reach]
    spatial = [max(side, r + 1) for side, r in zip((h_in, w_in), reach)]
    n = source.choices((1, 2, 4, 8), (80, 8, 6, 6))[0]
    return ConvProblem(
        n, c_in, c_out, spatial, kernel, (stride,) * 2, (dilation,) * 2, [(p, p) for p in padding], groups
    )


def _channels(source: random.Random) -> tuple[int, int, int]:
    """(groups, c_in, c_out): dense, depthwise, of few input channels, or of several groups."""
    kind = source.choices(("dense", "depthwise", "first", "grouped"), (62, 16, 6, 16))[0]
    if kind == "first":
        return 1, source.choice((1, 3, 4)), _width(source)
    if kind == "depthwise":
        channels = _width(source)
        return channels, channels, channels
    if kind == "grouped":
        groups = source.choice((2, 3, 4, 8, 16, 32))
        c_in = source.choice((4, 8, 11, 16, 24, 32, 64))
        return groups, groups * c_in, groups * (c_in if source.random() < 0.8 else source.choice((8, 16, 32)))
    return 1, _width(source), _width(source)


def _width(source: random.Random) -> int:
    """Channels from 8 to 1024, as many small as large ones on a logarithmic scale, mostly whole vectors."""
    channels = 2 ** source.uniform(3, 10)
    unit = source.choices((16, 8, 1), (70, 20, 10))[0]
    return max(unit, round(channels / unit) * unit)
