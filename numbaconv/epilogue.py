"""What happens to an accumulator before it is stored: bias, then residual, then activation.

Activations are few and in normal form, so that a register tile holds them as one code and two numbers,
and the NumPy version here is what every tile is judged by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from numbaconv.errors import ConvError
from numbaconv.values import HashedOnce

# The index of a kind is its code number in generated code.
KINDS: tuple[str, ...] = ("clip", "leaky_relu", "sigmoid", "silu", "tanh", "gelu", "hardsigmoid", "hardswish", "mish")

_erfc = np.frompyfunc(math.erfc, 1, 1)


@dataclass(frozen=True)
class Activation:
    """A scalar function of the accumulator, in normal form.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    alpha, beta : float
        Lower and upper bound of "clip", which also stands for no activation at all (infinite bounds), since the
        tile always clamps; `alpha` is the slope of "leaky_relu"; "hardsigmoid" and "hardswish" use
        ``clip(alpha * x + beta, 0, 1)``; other kinds ignore both.

    Raises
    ------
    ConvError
        If `kind` is unknown, a number is NaN, or bounds are crossed.
    """

    kind: str
    alpha: float = 0.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConvError(f"activation kind {self.kind!r} is unknown; it must be one of {', '.join(KINDS)}")
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or math.isnan(value):
                raise ConvError(f"activation {self.kind!r} has {name}={value!r}; it must be a number and not NaN")
            object.__setattr__(self, name, float(value))
        if self.kind == "clip":
            if self.alpha > self.beta:
                raise ConvError(f"activation ('clip', {self.alpha}, {self.beta}) has lo > hi; lo must not exceed hi")
        elif math.isinf(self.alpha) or math.isinf(self.beta):
            raise ConvError(f"activation {self.kind!r} has the numbers {self.alpha}, {self.beta}; they must be finite")

    @classmethod
    def of(cls, spec) -> Activation:
        """Read what users write.

        Parameters
        ----------
        spec : None, str, tuple or Activation
            None, "relu", "relu6", "silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "gelu" (the exact form
            with erf), ("clip", lo, hi) or ("leaky_relu", slope).

        Raises
        ------
        ConvError
            If `spec` is none of these, if lo > hi, or if a number is NaN.
        """
        if isinstance(spec, Activation):
            return spec
        if spec is None or isinstance(spec, str):
            if spec in _NAMED:
                return _NAMED[spec]
        elif isinstance(spec, (tuple, list)) and spec:
            name, *numbers = spec
            if name == "clip" and len(numbers) == 2:
                return cls("clip", *numbers)
            if name == "leaky_relu" and len(numbers) == 1:
                return cls("leaky_relu", *numbers)
        raise ConvError(
            f"activation={spec!r} is unknown; it must be {', '.join(map(repr, _NAMED))}, "
            "('clip', lo, hi) or ('leaky_relu', slope)"
        )

    @property
    def code(self) -> int:
        """The number of `kind` in generated code."""
        return KINDS.index(self.kind)

    @property
    def is_identity(self) -> bool:
        """Whether every value passes unchanged."""
        return self == IDENTITY

    def __str__(self) -> str:
        """What users write for it, where that is one word, else the kind."""
        return next((name for name, activation in _NAMED.items() if name and activation == self), self.kind)

    def apply(self, y: np.ndarray) -> np.ndarray:
        """The activation of `y`, any shape, in the dtype of `y`; NaN stays NaN and nothing overflows."""
        # Infinite input gives inf * 0 in silu and gelu; bounds beyond f32 become infinite, which is what they mean.
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            alpha, beta = y.dtype.type(self.alpha), y.dtype.type(self.beta)
            return np.asarray(_FORMULAS[self.kind](y, alpha, beta), y.dtype)


IDENTITY = Activation("clip", -math.inf, math.inf)

# hardsigmoid is PyTorch's relu6(x + 3) / 6; ONNX's has other numbers and the same form.
_NAMED = {
    None: IDENTITY,
    "relu": Activation("clip", 0.0, math.inf),
    "relu6": Activation("clip", 0.0, 6.0),
    "silu": Activation("silu"),
    "hardswish": Activation("hardswish", 1 / 6, 0.5),
    "sigmoid": Activation("sigmoid"),
    "hardsigmoid": Activation("hardsigmoid", 1 / 6, 0.5),
    "tanh": Activation("tanh"),
    "gelu": Activation("gelu"),
}


def _sigmoid(y, alpha, beta):
    e = np.exp(-np.abs(y))  # at most 1, so neither branch overflows
    return np.where(y >= 0, 1 / (1 + e), e / (1 + e))


def _gelu(y, alpha, beta):
    # erfc(-z) is 1 + erf(z) without the cancellation for negative z.
    return y * (0.5 * _erfc(y * -math.sqrt(0.5)).astype(np.float64)).astype(y.dtype)


def _hardsigmoid(y, alpha, beta):
    return np.clip(alpha * y + beta, 0, 1)


_FORMULAS = {
    "clip": np.clip,
    "leaky_relu": lambda y, alpha, beta: np.where(y >= 0, y, alpha * y),
    "sigmoid": _sigmoid,
    "silu": lambda y, alpha, beta: y * _sigmoid(y, alpha, beta),
    "tanh": lambda y, alpha, beta: np.tanh(y),
    "gelu": _gelu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda y, alpha, beta: y * _hardsigmoid(y, alpha, beta),
    # tanh(softplus)
    "mish": lambda y, alpha, beta: y * np.tanh(np.logaddexp(y.dtype.type(0), y)),
}


@dataclass(frozen=True)
class Epilogue(HashedOnce):
    """``activation(accumulator + bias + residual)``, the sum taken from left to right.

    Parameters
    ----------
    bias : bool
        Whether one value a channel is added.
    residual : bool
        Whether an array of the result's shape is added.
    activation : Activation
    """

    bias: bool = False
    residual: bool = False
    activation: Activation = IDENTITY

    __hash__ = HashedOnce.__hash__

    def apply(
        self,
        y: np.ndarray,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        *,
        layout: str = "channels_first",
    ) -> np.ndarray:
        """The epilogue of a batched `y` in `layout`, computed in the dtype of `y` by NumPy.

        Parameters
        ----------
        y : ndarray
            ``(n, c_out, *spatial)`` or ``(n, *spatial, c_out)``; it is left as it is.
        bias : ndarray, optional
            ``(c_out,)``.
        residual : ndarray, optional
            The shape of `y`.

        Raises
        ------
        ConvError
            If an operand is given that the epilogue lacks, or the reverse.
        """
        for name, wanted, operand in (("bias", self.bias, bias), ("residual", self.residual, residual)):
            if wanted != (operand is not None):
                raise ConvError(f"the epilogue has {name}={wanted}, but {name} was {'not ' * wanted}given")
        if bias is not None:
            axes = y.ndim - 2 if layout == "channels_first" else 0
            y = y + bias.astype(y.dtype, copy=False).reshape(-1, *(1,) * axes)
        if residual is not None:
            y = y + residual.astype(y.dtype, copy=False)
        return self.activation.apply(y)
