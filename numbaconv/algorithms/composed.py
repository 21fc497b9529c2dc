"""What plans that are made of other plans share: on arrays they run as on their addresses."""

from __future__ import annotations

import numpy as np

from numbaconv.algorithms.tiled import address
from numbaconv.loops.launch import usable_threads
from numbaconv.workspace import scratch


class ComposedPlan:
    """Base of plans that say how they run on addresses (`run_at`) and what workspace that takes (`scratch_bytes`)."""

    def run(
        self,
        x: np.ndarray,
        out: np.ndarray,
        residual: np.ndarray | None = None,
        workspace: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Compute into `out`; all arrays are contiguous."""
        threads = threads or usable_threads()
        if workspace is None:
            workspace = scratch(self.scratch_bytes(threads))
        addresses = (0 if array is None else address(array) for array in (x, out, residual))
        self.run_at(*addresses, workspace, threads)

    def scratch_bytes(self, threads: int) -> int:
        """Bytes of workspace that `run` needs on so many threads."""
        raise NotImplementedError

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses."""
        raise NotImplementedError
