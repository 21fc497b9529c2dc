"""Search interpolation points for Winograd's transforms: the amplification of rounding errors of the best sets.

python -m bench.winograd_points --points 6 --sizes 4,3 2,5 --largest 4 --best 5

The first line of the answer is what `numbaconv.codegen.cook_toom` should hold for that number of points.
"""

import argparse
import itertools
import math
from fractions import Fraction

from numbaconv.codegen.cook_toom import amplification_of, construct


def candidates(denominators: tuple[int, ...], largest: int) -> list[Fraction]:
    """Positive fractions from 1/4 to `largest` that binary floating point holds exactly."""
    values = {Fraction(a, b) for b in denominators for a in range(1, largest * b + 1)}
    return sorted(value for value in values if value >= Fraction(1, 4))


def search(n: int, sizes: list[tuple[int, int]], halves: list[Fraction]) -> list[tuple[float, tuple[Fraction, ...]]]:
    """(geometric mean of the amplification over `sizes`, positive halves of the points), the best first."""
    found = []
    for half in itertools.combinations(halves, (n - 1 - (n % 2 == 0)) // 2):
        points = (Fraction(0), *(sign * p for p in half for sign in (1, -1)))
        logs = [math.log(amplification_of(construct(m, r, points))) for m, r in sizes]
        found.append((math.exp(sum(logs) / len(logs)), half))
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.winograd_points", description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, required=True, help="m + r - 1")
    parser.add_argument("--sizes", nargs="+", required=True, help="pairs m,r that add up to it")
    parser.add_argument("--denominators", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--largest", type=int, default=4)
    parser.add_argument("--best", type=int, default=5)
    args = parser.parse_args()
    sizes = [tuple(map(int, size.split(","))) for size in args.sizes]
    if any(m + r - 1 != args.points for m, r in sizes):
        parser.error(f"every m,r must have m + r - 1 = {args.points}")
    for mean, half in search(args.points, sizes, candidates(tuple(args.denominators), args.largest))[: args.best]:
        print(f"{mean:6.3f}  {' '.join(map(str, half))}")


if __name__ == "__main__":
    main()
