"""Fit the constants of the cost model to measurements of `bench.regret`.

python -m bench.regret --random 300 --json measured.json
python -m bench.fit measured.json

Estimates are made by the model itself, so an algorithm that comes later is fitted with no change here.  Times count in cycles
of the FMA peak of the same rounds.  What is minimised is the mean of |log(estimate / measured)|, which a few disturbed
measurements do not move, above all between the algorithms of one problem, which were measured together.  Each constant in
turn is scaled up and down until that gains nothing.
"""

import argparse
import dataclasses
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

from numbaconv.algorithms import ALGORITHMS, cost
from numbaconv.algorithms.layout import around
from numbaconv.dispatch.select import Candidate
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.machine import Machine, Rates, machine
from numbaconv.problem import ConvProblem

#: What a call costs outside of the model, and how much slower than the best a candidate may be to count.
CALL, HOPELESS = 5e-6, 3.0
#: Weight of errors that all algorithms of a problem share.
ABSOLUTE = 0.3
#: The register-only peak in operations a cycle of one vector lane: two fused multiply-adds.
FLOPS_PER_LANE = 2 * cost.FMA
CONSTANTS = ("PARTIAL", "STREAM", "MISSED", "STREAMED", "PATCH", "SEGMENT", "COPY", "ENTRY", "LISTED")
RATES = tuple(field.name for field in dataclasses.fields(Rates) if field.name != "clock")


class Sample:
    """One algorithm's measured cycles on one problem."""

    def __init__(self, problem: ConvProblem, algorithm, cycles: float):
        self.problem, self.algorithm, self.cycles = problem, algorithm, cycles
        self.epilogue = Epilogue(problem.bias, False, Activation.of(None))

    def error(self, on: Machine) -> float:
        """Logarithm of the estimate over the measured time, where the machine has a clock of one."""
        estimate = self.algorithm.estimate(self.problem, on)
        if not self.algorithm.native(self.problem):
            estimate = around(estimate, self.problem, self.epilogue, on)
        return math.log(estimate.seconds / self.cycles)


def read(files: list[Path], lanes: int) -> list[Sample]:
    """Samples of all files; a problem that is measured more than once counts with its least time."""
    least: dict[tuple[str, str], float] = {}
    for item in (item for file in files for item in json.loads(file.read_text())):
        best = min(item["seconds"].values())
        for name, seconds in item["seconds"].items():
            if seconds < HOPELESS * best and seconds > 2 * CALL:
                cycles = (seconds - CALL) * item["peak"] * 1e9 / (FLOPS_PER_LANE * lanes)
                key = item["problem"], name
                least[key] = min(cycles, least.get(key, cycles))
    problems = {text: ConvProblem.parse(text) for text, _ in least}
    algorithms = {(text, Candidate(a, None, None).label(p)): a for text, p in problems.items() for a in ALGORITHMS}
    return [Sample(problems[key[0]], algorithms[key], cycles) for key, cycles in least.items()]


def loss(samples: list[Sample], on: Machine) -> float:
    """Mean of |log(estimate / measured)| between the algorithms of a problem, and with less weight between problems."""
    errors = [sample.error(on) for sample in samples]
    by_problem = defaultdict(list)
    for sample, error in zip(samples, errors):
        by_problem[sample.problem].append(error)
    middles = {problem: statistics.median(group) for problem, group in by_problem.items()}
    middle = statistics.median(errors)  # what is common to all is the clock
    within = statistics.fmean(abs(error - middles[sample.problem]) for sample, error in zip(samples, errors))
    return within + ABSOLUTE * statistics.fmean(abs(error - middle) for error in middles.values())


def fit(samples: list[Sample], on: Machine, names: tuple[str, ...]) -> tuple[Machine, float]:
    """The machine with fitted rates; constants of the model are set in its module."""

    def scaled(on: Machine, name: str, factor: float) -> Machine:
        if name in RATES:
            return dataclasses.replace(
                on, rates=dataclasses.replace(on.rates, **{name: getattr(on.rates, name) * factor})
            )
        setattr(cost, name, getattr(cost, name) * factor)
        return on

    best, step = loss(samples, on), 1.5
    while step > 1.02:
        gained = False
        for name in names:
            for factor in (step, 1 / step):
                trial = scaled(on, name, factor)
                found = loss(samples, trial)
                if found < best - 1e-5:
                    on, best, gained = trial, found, True
                else:
                    scaled(on, name, 1 / factor)
        if not gained:
            step = math.sqrt(step)
    return on, best


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fit", description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="written by bench.regret --json")
    parser.add_argument("--only", nargs="+", default=RATES + CONSTANTS, choices=RATES + CONSTANTS)
    args = parser.parse_args()
    here = machine()
    samples = read(args.files, here.vector_bytes // 4)
    on = dataclasses.replace(here, rates=dataclasses.replace(here.rates, clock=1.0))
    print(f"{len(samples)} samples, mean |log| {loss(samples, on):.4f}")
    on, found = fit(samples, on, tuple(args.only))
    print(f"fitted: mean |log| {found:.4f}")
    for name in args.only:
        print(f"{name} = {getattr(on.rates if name in RATES else cost, name):.3g}")
    errors = sorted(sample.error(on) for sample in samples)
    quantiles = (math.exp(errors[int(q * (len(errors) - 1))]) for q in (0.05, 0.25, 0.5, 0.75, 0.95))
    print("estimate over measured, 5, 25, 50, 75, 95 %:", *(f"{q:.2f}" for q in quantiles))
    for algorithm in ALGORITHMS:
        own = [sample.error(on) for sample in samples if sample.algorithm is algorithm]
        if own:
            print(f"  {algorithm.name}: {len(own)} samples, median {math.exp(statistics.median(own)):.2f}")


if __name__ == "__main__":
    main()
