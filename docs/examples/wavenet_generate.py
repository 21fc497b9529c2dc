"""Generate a signal sample by sample with a WaveNet-like stack of dilated causal convolutions, whose states are kept.

    python docs/examples/wavenet_generate.py

Every new sample costs one output of each layer, not a run over the receptive field (Le Paine et al., "Fast WaveNet Generation
Algorithm", 2016).  The weights are random, so it is noise that is generated; what is shown is that it is, bit for bit, what the
network gives for the whole signal at once.
"""

from __future__ import annotations

import time

import numpy as np

import numbaconv as nc


class WaveNet:
    """Residual blocks of gated dilated convolutions (van den Oord et al., 2016) on signals of one channel, (length, 1)."""

    def __init__(self, channels=32, dilations=(1, 2, 4, 8, 16, 32, 64, 128), seed=0):
        rng = np.random.default_rng(seed)

        def causal(c_in, c_out, k, dilation=1, activation=None):
            weight = rng.standard_normal((c_out, c_in, k), np.float32) / np.float32(np.sqrt(c_in * k))
            return nc.CausalConv1d(weight, dilation=dilation, layout="channels_last", activation=activation)

        self.first = causal(1, channels, 2)
        self.blocks = [
            (
                causal(channels, channels, 2, dilation, "tanh"),
                causal(channels, channels, 2, dilation, "sigmoid"),
                causal(channels, channels, 1),
            )
            for dilation in dilations
        ]
        self.last = causal(channels, 1, 1, activation="tanh")
        self.receptive_field = 2 + sum(dilations)

    def __call__(self, x):
        """The prediction of each next sample from all samples up to it."""
        return self._run(x, [self.first, *self.blocks, self.last])

    def stream(self):
        """A function like the network itself that takes a signal in chunks and remembers what came before."""
        states = [
            self.first.stream(),
            *([layer.stream() for layer in block] for block in self.blocks),
            self.last.stream(),
        ]
        return lambda chunk: self._run(chunk, states)

    @staticmethod
    def _run(x, layers):
        first, *blocks, last = layers
        h = first(x)
        for signal, gate, mix in blocks:
            h = h + mix(signal(h) * gate(h))
        return last(h)


def generate(network, length, seed=1):
    """A signal of so many samples, each the network's prediction and some noise."""
    rng = np.random.default_rng(seed)
    step = network.stream()
    signal = np.zeros((length, 1), np.float32)
    for i in range(1, length):
        signal[i] = step(signal[i - 1 : i])[0] + np.float32(0.1) * rng.standard_normal(1, np.float32)
    return signal


def main(length=2000):
    """Generate, time it, and compare with the whole signal's predictions."""
    network = WaveNet()
    generate(network, 10)  # compiles
    begin = time.perf_counter()
    signal = generate(network, length)
    seconds = time.perf_counter() - begin
    step = network.stream()
    chunks = [step(signal[start : start + 7]) for start in range(0, length, 7)]
    same = np.concatenate(chunks).tobytes() == network(signal).tobytes()
    print(f"{length} samples, receptive field {network.receptive_field}: {seconds / length * 1e6:.0f} us a sample")
    print(f"chunks of 7 give the bits of the whole signal: {same}")
    return same


if __name__ == "__main__":
    main()
