"""What nearly all plans share: they run on addresses of arrays, and on the pitches of pixels that have gaps between them."""

from __future__ import annotations

import numpy as np

from numbaconv.errors import ShapeError
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.ndarrays import address
from numbaconv.workspace import scratch

#: Elements from pixel to pixel of x, out and residual.
Pitches = tuple[int, int, int]


class AddressedPlan:
    """Base of plans that say how they run on addresses (`run_at`) and what workspace that takes (`scratch_bytes`).

    Both are given the pitches, too, by plans whose channels-last arrays may have `gaps` between their pixels; others take arrays
    without gaps only.
    """

    gaps = False

    def run(
        self,
        x: np.ndarray,
        out: np.ndarray,
        residual: np.ndarray | None = None,
        workspace: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Compute into `out`; see `Plan.run`."""
        pitches = self._pitches_of(x, out, out if residual is None else residual)
        # read once, since another thread may change it before the launch
        threads = threads or usable_threads()
        if workspace is None:
            workspace = scratch(self.scratch_bytes(threads, *pitches))
        addresses = (0 if array is None else address(array) for array in (x, out, residual))
        self.run_at(*addresses, workspace, threads, *pitches)

    def _pitches_of(self, *arrays: np.ndarray) -> tuple[Pitches, ...]:
        """The pitches, or nothing where there are no gaps."""
        if all(array.flags.c_contiguous for array in arrays):
            return ()
        if not self.gaps:
            raise ShapeError(
                f"{type(self).__name__} takes arrays without gaps, not strides of {[a.strides for a in arrays]}"
            )
        return (tuple(map(pixel_pitch, arrays)),)

    def scratch_bytes(self, threads: int) -> int:
        """Bytes of workspace that `run` needs on so many threads."""
        raise NotImplementedError

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses."""
        raise NotImplementedError


def pixel_pitch(array: np.ndarray) -> int:
    """Elements from pixel to pixel of a channels-last array, whose rows and images must follow without gaps.

    The stride of an axis of length one means nothing, so the innermost longer axis tells.
    """
    channels, spatial = array.shape[-1], list(zip(array.shape[-2::-1], array.strides[-2::-1]))
    pitch = next((stride for size, stride in spatial if size > 1), channels * array.itemsize)
    follows = channels == 1 or array.strides[-1] == array.itemsize
    expected = pitch
    for size, stride in spatial:
        follows &= size == 1 or stride == expected
        expected *= size
    if not follows or pitch % array.itemsize or pitch < channels * array.itemsize:
        raise ShapeError(
            f"strides={array.strides} of a channels-last array of shape {array.shape} must be those of pixels a fixed "
            "pitch apart, at least their channels, with neighbouring channels"
        )
    return pitch // array.itemsize
