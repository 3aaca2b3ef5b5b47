"""COMET in float64 and plain loops, written straight from Eqs. 2–8; slow and obvious."""

from __future__ import annotations

import numpy as np


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def embedding_map(table: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Eq. 2, 3: the rows of the history, stacked; the pad is a zero row."""
    k = table.shape[1]
    rows = [table[j] if j < len(table) else np.zeros(k) for j in history]
    return np.stack(rows)


def cross_features(e: np.ndarray, weights: list, biases: list) -> np.ndarray:
    """Eq. 4, 5: one feature for each width, channel and place of the filter."""
    n, k = e.shape
    features = []
    for weight, bias in zip(weights, biases, strict=True):
        channels, rows, width = weight.shape
        assert rows == n
        for channel in range(channels):
            for t in range(k - width + 1):
                total = bias[channel]
                for row in range(n):
                    for h in range(width):
                        total += weight[channel, row, h] * e[row, t + h]
                features.append(total)
    return relu(np.array(features))


def interaction_vector(table, history, tower: dict) -> np.ndarray:
    """Eq. 6, 7: the MLP on the cross features."""
    x = cross_features(embedding_map(table, history), tower["weights"], tower["biases"])
    layers = list(zip(tower["mlp_weights"], tower["mlp_biases"], strict=True))
    for weight, bias in layers[:-1]:
        x = relu(weight @ x + bias)
    weight, bias = layers[-1]
    return weight @ x + bias


def logit(parameters: dict, user: int, item: int, user_history, item_history) -> float:
    """Eq. 8 before σ."""
    p, q = parameters["p"], parameters["q"]
    z_user = p[user] + interaction_vector(q, user_history, parameters["user_tower"])
    z_item = q[item] + interaction_vector(p, item_history, parameters["item_tower"])
    return float(parameters["h"] @ (z_user * z_item))


def parameters_of(model) -> dict:
    """A torch COMET's parameters as float64 arrays."""

    def array(t) -> np.ndarray:
        return t.detach().double().numpy()

    def tower(t) -> dict:
        return {
            "weights": [array(w) for w in t.convolution.weights],
            "biases": [array(b) for b in t.convolution.biases],
            "mlp_weights": [array(w) for w in t.mlp.weights],
            "mlp_biases": [array(b) for b in t.mlp.biases],
        }

    return {
        "p": array(model.user_embedding),
        "q": array(model.item_embedding),
        "h": array(model.h),
        "user_tower": tower(model.user_tower),
        "item_tower": tower(model.item_tower),
    }
