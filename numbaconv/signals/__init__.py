"""Convolution as signal processing has it: a flipped kernel, one channel, any number of axes, real and complex."""

from numbaconv.signals.functional import choose_method, convolve, correlate, fft_convolve, fir_filter, oaconvolve

__all__ = ["choose_method", "convolve", "correlate", "fft_convolve", "fir_filter", "oaconvolve"]
