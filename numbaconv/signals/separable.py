"""Kernels of rank one, which are a column times a row: two passes of k taps instead of one of k^2."""

from __future__ import annotations

import numpy as np

#: Second singular value, in units of rounding of the first, that rounding of the elements of a product explains.
_ROUNDING = 4.0


def rank_one(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Column and row whose outer product is the kernel up to rounding, or None.

    The singular values decide; the factors are the kernel's own row and column through its largest element, so that whole numbers
    mostly stay whole.  Kernels of which these leave something over are not decomposed, which would take long.
    """
    i, j = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
    largest = kernel[i, j]
    if largest == 0 or not np.isfinite(largest):
        return None
    column, row = kernel[:, j] / largest, kernel[i].copy()
    unit = np.finfo(kernel.dtype).eps
    if not np.abs(kernel - np.outer(column, row)).max() <= _ROUNDING * unit * abs(largest):
        return None
    values = np.linalg.svd(kernel, compute_uv=False)
    return (column, row) if values[1] <= _ROUNDING * unit * values[0] else None
