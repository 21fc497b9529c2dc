"""Plans that are run with other weights each time: made once, their packed weights filled anew."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from numbaconv.algorithms.base import Plan


class PlanPool:
    """Plans of one problem that wait for the next weights.

    Plans hold addresses of packed weights, so one that runs belongs to its caller until it is given back; there are as many as
    ever ran at once.  `make` makes the weights, of which it may keep the array that it is given, and a plan for them.  Plans
    with weights of more than `most_bytes` are not kept: to pack them is little beside what they do.
    """

    def __init__(self, make: Callable[[np.ndarray], tuple], most_bytes: int):
        self._make, self._most_bytes = make, most_bytes
        self._waiting: deque = deque()

    def run(
        self,
        weight: np.ndarray,
        x: np.ndarray,
        out: np.ndarray,
        residual: np.ndarray | None = None,
        threads: int | None = None,
    ) -> None:
        """Run a plan with these weights; see `Plan.run`."""
        taken = self._take(weight)
        try:
            taken[1].run(x, out, residual, threads=threads)
        finally:
            if weight.nbytes <= self._most_bytes:
                self._waiting.append(taken)

    def _take(self, weight: np.ndarray) -> tuple[object, Plan]:
        try:
            taken = self._waiting.pop()
        except IndexError:
            taken = self._make(weight)
            # all forms that the plan reads are made
            taken[0].release()
        else:
            taken[0].replace(weight)
        return taken
