"""Train a LeNet on scikit-learn's handwritten digits, with numbaconv's convolutions and gradients and NumPy for the rest.

    python docs/examples/train_lenet.py

1,797 real digits of 8 x 8 pixels, of which every fourth is held out.  After LeCun, Bottou, Bengio and Haffner, "Gradient-based
learning applied to document recognition" (1998), scaled down to images of this size.
"""

import argparse
import time

import numpy as np

import numbaconv as nc


class Convolution:
    """3x3, padded to keep the size, with a bias; `grads` are those of the last step."""

    def __init__(self, rng, c_in, c_out):
        weight = rng.standard_normal((c_out, c_in, 3, 3)) * np.sqrt(2 / (9 * c_in))
        self.params = [weight.astype(np.float32), np.zeros(c_out, np.float32)]

    def forward(self, x):
        self.x = x
        return nc.conv2d(x, *self.params, padding=1)

    def backward(self, grad_output):
        grad_x, *self.grads = nc.conv2d_backward(grad_output, self.x, self.params[0], padding=1)
        return grad_x


class Dense:
    """Every input to every output: a convolution whose kernel is as large as its input."""

    def __init__(self, rng, shape, c_out):
        weight = rng.standard_normal((c_out, *shape)) * np.sqrt(2 / np.prod(shape))
        self.params = [weight.astype(np.float32), np.zeros(c_out, np.float32)]

    def forward(self, x):
        self.x = x
        return nc.conv2d(x, *self.params)

    def backward(self, grad_output):
        grad_x, *self.grads = nc.conv2d_backward(grad_output, self.x, self.params[0])
        return grad_x


class Relu:
    """Cuts off what is negative."""

    params = grads = ()

    def forward(self, x):
        self.positive = x > 0
        return x * self.positive

    def backward(self, grad_output):
        return grad_output * self.positive


class MaxPool:
    """The largest of each 2x2 pixels."""

    params = grads = ()

    def forward(self, x):
        rows = np.maximum(x[:, :, ::2], x[:, :, 1::2])
        largest = np.maximum(rows[..., ::2], rows[..., 1::2])
        self.chosen = x == enlarged(largest)
        return largest

    def backward(self, grad_output):
        return self.chosen * enlarged(grad_output)


def enlarged(x):
    """Every pixel four times."""
    return x.repeat(2, axis=2).repeat(2, axis=3)


class LeNet:
    """Two convolutions with pooling, then two dense layers."""

    def __init__(self, rng):
        self.layers = [
            Convolution(rng, 1, 16), Relu(), MaxPool(), Convolution(rng, 16, 32), Relu(), MaxPool(),
            Dense(rng, (32, 2, 2), 64), Relu(), Dense(rng, (64, 1, 1), 10),
        ]  # fmt: skip
        self.momenta = [[np.zeros_like(param) for param in layer.params] for layer in self.layers]

    def forward(self, x):
        """Scores of the ten digits, (n, 10)."""
        for layer in self.layers:
            x = layer.forward(x)
        return x[:, :, 0, 0]

    def step(self, x, digits, rate, momentum=0.9):
        """One step of gradient descent on the cross entropy."""
        scores = self.forward(x)
        grad = np.exp(scores - scores.max(axis=1, keepdims=True))
        grad /= grad.sum(axis=1, keepdims=True)
        grad[np.arange(len(digits)), digits] -= 1
        grad = (grad / np.float32(len(digits)))[:, :, None, None]
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        for layer, momenta in zip(self.layers, self.momenta):
            for param, gradient, velocity in zip(layer.params, layer.grads, momenta):
                velocity *= momentum
                velocity -= rate * gradient
                param += velocity

    def accuracy(self, x, digits):
        """The part of the digits that it tells."""
        return float((self.forward(x).argmax(axis=1) == digits).mean())


def digits():
    """Images and labels to train with, and held-out ones."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = (data.images[:, None] / 16).astype(np.float32), data.target
    held_out = np.arange(len(labels)) % 4 == 3
    return images[~held_out], labels[~held_out], images[held_out], labels[held_out]


def train(epochs=15, batch=32, seed=1, report=print):
    """Train a LeNet and return its accuracy on held-out digits."""
    rng = np.random.default_rng(seed)
    images, labels, held_images, held_labels = digits()
    net = LeNet(rng)
    for epoch in range(epochs):
        order = rng.permutation(len(labels))
        rate = np.float32(0.05 * (1 + np.cos(np.pi * epoch / epochs)))
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            net.step(images[chosen], labels[chosen], rate)
        report(
            f"epoch {epoch + 1:2}: {net.accuracy(held_images, held_labels):.2%} of {len(held_labels)} held-out digits"
        )
    return net.accuracy(held_images, held_labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    start = time.perf_counter()
    # with images this small, threads would wait longer for one another than they compute
    with nc.num_threads(1):
        train(args.epochs, seed=args.seed)
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
