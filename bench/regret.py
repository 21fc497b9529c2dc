"""How much time selection loses: every algorithm that does a problem is measured, and the choice compared with the best.

python -m bench.regret --suite resnet50 mobilenetv2 --layout channels_last
python -m bench.regret --random 300 --json measured.json
python -m bench.regret --read measured.json       # judge today's estimates by those measurements
python -m bench.regret --random 300 --selection-cost

Algorithms are interleaved in one process, on the same operands.  The regret of a problem is the time of the algorithm
that the cost model ranks first over the least of all times.
"""

import argparse
import json
import random
import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

import numbaconv as nc
from bench import peak, report, suites
from bench.operands import aligned
from bench.random_problems import random_problems
from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.base import Plan
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.dispatch.select import best, rank
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.problem import LAYOUTS, ConvProblem

#: Seconds of one batch of calls: short, so that what disturbs the machine for a while hits all candidates.
BATCH = 5e-4
#: How much slower than the best a candidate may be, in all of its first rounds, before later ones leave it out.
HOPELESS, FIRST = 3.0, 3
#: A regret above this is measured again with more rounds, since the best of several disturbed times is partly luck.
DOUBTFUL, AGAIN = 1.08, 3
#: Problems that take less count in the mean but not among the worst: a call's own overhead decides them.
SHORT = 20e-6
ORACLE = "reference"


@dataclass(frozen=True)
class Judged:
    """One problem with seconds measured and estimated, by algorithm, the FMA peak of the same rounds in GFLOP/s, and the choice."""

    problem: str
    seconds: dict[str, float]
    peak: float
    estimates: dict[str, float]
    choice: str

    @property
    def best(self) -> str:
        return min(self.seconds, key=self.seconds.get)

    @property
    def regret(self) -> float:
        return self.seconds[self.choice] / self.seconds[self.best]

    @property
    def kind(self) -> str:
        return suites.kind_of(ConvProblem.parse(self.problem))


def estimates(problem: ConvProblem) -> tuple[dict[str, float], str]:
    """Estimated seconds of every algorithm that does the problem, but the oracle, and which one is chosen."""
    rows = [row for row in nc.explain(problem).rows if row.reason is None and row.algorithm != ORACLE]
    return {row.label: row.seconds for row in rows}, next(row.label for row in rows if row.chosen)


def plans(problem: ConvProblem, names: list[str], weights: Weights) -> dict[str, Plan]:
    """Plans of the algorithms with these labels, variants included, whatever the cost model thinks of them."""
    on, epilogue = calibrated_machine(), Epilogue(bias=True, residual=False, activation=Activation.of(None))
    found = {}
    for candidate in rank(problem, epilogue, on, Accuracy.of(None)):
        label = f"{candidate.algorithm.name} {candidate.algorithm.variant(problem)}".rstrip()
        if label in names:
            plan = candidate.algorithm.plan(problem, weights, epilogue, on)
            found[label] = plan if candidate.algorithm.native(problem) else ChannelsFirst(plan, problem)
    return found


def measure(problem: ConvProblem, names: list[str], rounds: int) -> tuple[dict[str, float], float]:
    """Seconds of a call by algorithm and the FMA peak: lower quartiles of interleaved rounds."""
    rng = np.random.default_rng(0)
    x = aligned(rng.standard_normal(problem.input_shape, np.float32))
    weight = rng.standard_normal(problem.weight_shape, np.float32)
    bias = rng.standard_normal(problem.c_out, np.float32)
    out = aligned(np.zeros(problem.output_shape, np.float32))
    fma = peak.prepare(problem, None, 1, "", None)
    weights = Weights(weight, bias, problem.groups)
    runs = {name: partial(plan.run, x, out) for name, plan in plans(problem, names, weights).items()}
    seconds, peaks = {name: [] for name in names}, []
    for run in runs.values():
        run()
    calls = {name: max(1, int(BATCH / _time(run, 1))) for name, run in runs.items()}
    order, source = list(runs.items()), random.Random(0)
    for _ in range(rounds):
        fastest = min((min(times) for times in seconds.values() if times), default=np.inf)
        peaks.append(_time(fma.call, 1))
        # whoever follows one that leaves much in the caches waits until that is written
        source.shuffle(order)
        for name, run in order:
            if len(seconds[name]) < FIRST or min(seconds[name]) < HOPELESS * fastest:
                seconds[name].append(_time(run, calls[name]))
    quartiles = {name: float(np.quantile(times, 0.25)) for name, times in seconds.items()}
    return quartiles, fma.flops / float(np.quantile(peaks, 0.25)) / 1e9


def _time(run, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def selection_cost(problems: list[ConvProblem]) -> list[float]:
    """Seconds to rank the algorithms for each problem, of which none was ranked before."""
    on, epilogue = calibrated_machine(), Epilogue(bias=False, residual=False, activation=Activation.of(None))
    seconds = []
    for problem in problems:
        start = time.perf_counter()
        best(problem, epilogue, on, Accuracy.of(None))
        seconds.append(time.perf_counter() - start)
    return seconds


def show(judged: list[Judged], worst: int) -> None:
    """Regret by kind, then the problems with the largest, with milliseconds measured and estimated."""
    rows = []
    for kind in suites.KINDS:
        if group := [item for item in judged if item.kind == kind.name]:
            rows.append([kind.title, *_summary(group)])
    rows.append(["all of them", *_summary(judged)])
    report.show("regret", ["kind", "problems", "mean", "worst", "on", "chosen"], rows)
    rows = [
        [item.problem, f"{item.regret:.2f}", *(_pair(item, name) for name in (item.choice, item.best))]
        for item in sorted(judged, key=lambda item: -item.regret)[:worst]
    ]
    report.show("us measured (estimated)", ["problem", "regret", "chosen", "best"], rows)
    rows = []
    for name in sorted({name for item in judged for name in item.seconds}):
        ratios = [item.estimates[name] / item.seconds[name] for item in judged if item.seconds.get(name)]
        low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
        rows.append([name, str(len(ratios)), *(f"{ratio:.2f}" for ratio in (low, middle, high))])
    report.show("estimate over measured", ["algorithm", "problems", "lowest tenth", "median", "highest tenth"], rows)


def _summary(group: list[Judged]) -> list[str]:
    mean = statistics.geometric_mean(item.regret for item in group)
    worst = max((item for item in group if item.seconds[item.best] > SHORT), key=lambda item: item.regret, default=None)
    chosen = Counter(item.choice for item in group).most_common()
    names = ", ".join(f"{name} {count}" for name, count in chosen)
    return [str(len(group)), f"{mean:.3f}", *([f"{worst.regret:.2f}", worst.problem] if worst else ["-", "-"]), names]


def _pair(item: Judged, name: str) -> str:
    return f"{name} {item.seconds[name] * 1e6:.0f} ({item.estimates[name] * 1e6:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.regret", description=__doc__.splitlines()[0])
    parser.add_argument("--suite", nargs="+", default=[], choices=suites.names())
    parser.add_argument("--random", type=int, default=0, metavar="COUNT", help="so many random problems")
    parser.add_argument("--seed", type=int, default=0, help="of the random problems")
    parser.add_argument("--read", type=Path, nargs="+", default=[], help="measurements written by --json")
    parser.add_argument("--filter", default="", help="regular expression on the problem string and the layer's name")
    parser.add_argument("--layout", nargs="+", default=LAYOUTS, choices=LAYOUTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--worst", type=int, default=15, help="how many of the worst problems to list")
    parser.add_argument("--selection-cost", action="store_true", help="measure nothing but how long choosing takes")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    args = parser.parse_args()
    nc.set_num_threads(args.threads)
    problems = [layer.problem for suite in args.suite for layer in suites.load(suite, args.filter)]
    problems += random_problems(args.random, args.seed)
    problems = list(dict.fromkeys(replace(problem, layout=layout) for problem in problems for layout in args.layout))
    if args.selection_cost and problems:
        low, middle, high = 1e6 * np.quantile(selection_cost(problems), (0.1, 0.5, 0.9))
        print(f"choosing for a new shape: median {middle:.0f} us, tenths {low:.0f} and {high:.0f} us")
        return
    judged = []
    for problem in problems:
        estimated, choice = estimates(problem)
        item = Judged(str(problem), *measure(problem, list(estimated), args.rounds), estimated, choice)
        if item.regret > DOUBTFUL:
            item = Judged(str(problem), *measure(problem, list(estimated), AGAIN * args.rounds), estimated, choice)
        judged.append(item)
    if args.json:
        args.json.write_text(json.dumps([asdict(item) for item in judged], indent=1))
    for file in args.read:
        for item in json.loads(file.read_text()):
            problem = ConvProblem.parse(item["problem"])
            seconds = item["seconds"]
            estimated, choice = estimates(problem)
            now = {name: estimate for name, estimate in estimated.items() if name in seconds}
            if choice not in now:
                # one that was not measured then
                choice = min(now, key=now.get)
            judged.append(Judged(item["problem"], {name: seconds[name] for name in now}, item["peak"], now, choice))
    if not judged:
        parser.error("name a suite, --random or --read")
    show(judged, args.worst)


if __name__ == "__main__":
    main()
