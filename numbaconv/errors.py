"""Every error that numbaconv raises on purpose.  Messages name the argument, the values and the rule."""


class ConvError(ValueError):
    """Base of all errors about a convolution that was asked for."""


class ShapeError(ConvError):
    """A shape, stride, padding, dilation or group count breaks a rule."""


class DTypeError(ConvError):
    """An element type is not supported, or operands mix several."""


class UnsupportedError(ConvError):
    """The algorithm asked for cannot do this problem; the message says why."""


class ModelError(ConvError):
    """A model file is damaged, or uses something that cannot be run."""
