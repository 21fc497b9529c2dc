"""How exact a result must be: a budget for rounding errors that excludes algorithms which cannot keep it.

Direct sums set the standard and are always allowed.  Algorithms that transform their input (Winograd, FFT) save multiplications
at the price of larger rounding errors, and let a NaN or infinity reach its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from numbers import Real

from numbaconv.errors import ConvError
from numbaconv.options import options
from numbaconv.values import HashedOnce


@dataclass(frozen=True)
class Accuracy(HashedOnce):
    """`rms` is the largest root mean square error, relative to that of the result; `local` keeps every NaN and infinity exactly
    where a direct sum would put it.
    """

    rms: float
    local: bool = False

    __hash__ = HashedOnce.__hash__

    @classmethod
    def of(cls, value) -> Accuracy:
        """The budget that a number, "strict" or None (what `set_accuracy` said) stands for.

        Raises
        ------
        ConvError
            If `value` is anything else.
        """
        if value is None:
            return _current or _from_environment()
        if isinstance(value, cls):
            return value
        if value == "strict":
            return STRICT
        if isinstance(value, Real) and not isinstance(value, bool) and isfinite(value) and value > 0:
            return cls(float(value))
        raise ConvError(f"accuracy={value!r} must be a positive number, 'strict' or None")


#: What holds until somebody says otherwise.
DEFAULT = Accuracy(1e-5)
STRICT = Accuracy(0.0, local=True)
_current: Accuracy | None = None


@lru_cache(maxsize=1)
def _from_environment() -> Accuracy:
    wanted = options().accuracy
    return DEFAULT if wanted is None else Accuracy.of(wanted)


def set_accuracy(accuracy=None) -> None:
    """Say how exact results must be, for all convolutions of this process that do not say it themselves.

    Parameters
    ----------
    accuracy : float, "strict" or None
        The largest root mean square error relative to the root mean square of the result, as expected for independent operands
        around zero; "strict" allows only algorithms that add products directly and keep every NaN and infinity where such a sum
        puts it; None is the default, ``NUMBACONV_ACCURACY`` or else 1e-5.

    Raises
    ------
    ConvError
        If it is anything else.
    """
    global _current
    _current = None if accuracy is None else Accuracy.of(accuracy)


def get_accuracy() -> float | str:
    """What `set_accuracy` said, or the default."""
    accuracy = Accuracy.of(None)
    return "strict" if accuracy.local else accuracy.rms
