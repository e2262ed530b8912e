"""A small network and its training: numpy in float64, full batch, the same on every machine."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
HIDDEN = (16, 8)
STEPS = 400


@dataclass(frozen=True)
class Net:
    """Layers of weights [n, m] and biases [m]; tanh between them, a sigmoid at the end."""

    weights: Sequence[Array]
    biases: Sequence[Array]

    def __call__(self, z: Array) -> Array:
        """Scores [n, 1]."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = np.tanh(z @ weight + bias)
        return 1.0 / (1.0 + np.exp(-(z @ self.weights[-1] + self.biases[-1])))


def train(z: Array, target: Array, seed: int) -> Net:
    """Full-batch Adam on the cross entropy; the same on every machine to many digits."""
    rng = np.random.default_rng(seed)
    widths = (z.shape[1], *HIDDEN, 1)
    params = [rng.normal(size=(n, m)) / np.sqrt(n) for n, m in itertools.pairwise(widths)]
    params += [np.zeros(m) for m in widths[1:]]
    depth = len(widths) - 1
    first, second = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    for step in range(1, STEPS + 1):
        for i, slope in enumerate(_slopes(params, depth, z, target)):
            first[i] = 0.9 * first[i] + 0.1 * slope
            second[i] = 0.999 * second[i] + 0.001 * slope**2
            rise = first[i] / (1 - 0.9**step)
            params[i] = params[i] - 0.02 * rise / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
    return Net(params[:depth], params[depth:])


def _slopes(params: list[Array], depth: int, z: Array, target: Array) -> list[Array]:
    """Gradients of the loss, weights first, as `params`; with a little weight decay."""
    layers = [z]
    for weight, bias in zip(params[: depth - 1], params[depth:-1], strict=True):
        layers.append(np.tanh(layers[-1] @ weight + bias))
    score = 1.0 / (1.0 + np.exp(-(layers[-1] @ params[depth - 1] + params[-1])))
    delta = (score - target[:, None]) / len(z)
    weights, biases = [], []
    for i in reversed(range(depth)):
        weights.append(layers[i].T @ delta + 1e-4 * params[i])
        biases.append(delta.sum(axis=0))
        if i:
            delta = (delta @ params[i].T) * (1.0 - layers[i] ** 2)
    return [*reversed(weights), *reversed(biases)]
