"""Kernels of rank one, which are a column times a row: two passes of k taps instead of one of k^2."""

from __future__ import annotations

import numpy as np

#: Second singular value, in units of rounding of the first, that rounding of the elements of a product explains.
_ROUNDING = 4.0


def rank_one(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Column and row whose outer product is the kernel up to rounding, or None.

    The singular values decide; the factors are the kernel's own row and column through its largest element, so that whole numbers
    mostly stay whole.
    """
    if not np.isfinite(kernel).all():
        return None
    values = np.linalg.svd(kernel, compute_uv=False)
    if len(values) < 2 or values[1] > _ROUNDING * np.finfo(kernel.dtype).eps * values[0]:
        return None
    i, j = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
    row = kernel[i].copy()
    return (kernel[:, j] / row[j] if row[j] else np.zeros_like(kernel[:, j])), row
