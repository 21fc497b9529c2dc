"""The core on one call record, again and again: what the calibration of a machine times."""

from __future__ import annotations

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import call_core


@njit(entry=True)
def repeat_core(core, call, times, like):
    """Call the core at address `core` `times` times; `like` is a scalar of its element type."""
    for _ in range(times):
        call_core(core, call, like, like)
