"""Loop references, straight from the equations, in float64."""

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


def mf(s: dict, user: int, item: int, history: list[int]) -> float:
    """Koren, Bell, Volinsky 2009, Eq. 4."""
    total = s["biases.bias"][0] + s["biases.users"][user] + s["biases.items"][item]
    for k in range(s["user_embedding"].shape[1]):
        total += s["user_embedding"][user, k] * s["item_embedding"][item, k]
    return float(total)


def svdpp(s: dict, user: int, item: int, history: list[int]) -> float:
    """Koren 2008, Eq. 15."""
    total = s["biases.bias"][0] + s["biases.users"][user] + s["biases.items"][item]
    for k in range(s["user_embedding"].shape[1]):
        factor = s["user_embedding"][user, k]
        for j in history:
            factor += s["history_embedding"][j, k] / np.sqrt(len(history))
        total += factor * s["item_embedding"][item, k]
    return float(total)


def fism(s: dict, user: int, item: int, history: list[int], alpha: float = 0.5) -> float:
    """Kabbur et al. 2013, Eq. 4; the history is without the item."""
    total = s["biases.bias"][0] + s["biases.users"][user] + s["biases.items"][item]
    for j in history:
        for k in range(s["item_embedding"].shape[1]):
            product = s["history_embedding"][j, k] * s["item_embedding"][item, k]
            total += product / len(history) ** alpha
    return float(total)


def gmf(s: dict, user: int, item: int, history: list[int]) -> float:
    """He et al. 2017, Eq. 8 and 9."""
    total = s["bias"][0]
    for k in range(len(s["h"])):
        total += s["h"][k] * s["user_embedding"][user, k] * s["item_embedding"][item, k]
    return float(total)


def mlp(s: dict, user: int, item: int, history: list[int]) -> float:
    """He et al. 2017, Eq. 10."""
    x = np.concatenate([s["user_embedding"][user], s["item_embedding"][item]])
    layers = sum(name.startswith("layers.weights") for name in s)
    for layer in range(layers):
        x = s[f"layers.weights.{layer}"] @ x + s[f"layers.biases.{layer}"]
        if layer < layers - 1:
            x = np.maximum(x, 0)
    return float(x[0])


def neumf(s: dict, user: int, item: int, history: list[int]) -> float:
    """He et al. 2017, Eq. 12: one output layer over both sides' last features."""
    left = {k.removeprefix("gmf."): v for k, v in s.items() if k.startswith("gmf.")}
    right = {k.removeprefix("mlp."): v for k, v in s.items() if k.startswith("mlp.")}
    x = np.concatenate([right["user_embedding"][user], right["item_embedding"][item]])
    last = sum(name.startswith("layers.weights") for name in right) - 1
    for layer in range(last):
        x = np.maximum(right[f"layers.weights.{layer}"] @ x + right[f"layers.biases.{layer}"], 0)
    phi = np.concatenate([left["user_embedding"][user] * left["item_embedding"][item], x])
    h = np.concatenate([left["h"], right[f"layers.weights.{last}"][0]])
    return float(h @ phi + left["bias"][0] + right[f"layers.biases.{last}"][0])


def convncf(s: dict, user: int, item: int, history: list[int]) -> float:
    """He et al. 2018, Eq. 2 to 8."""
    maps = np.outer(s["user_embedding"][user], s["item_embedding"][item])[None]
    for layer in range(sum(name.startswith("weights.") for name in s)):
        weight, bias = s[f"weights.{layer}"], s[f"biases.{layer}"]
        half = maps.shape[1] // 2
        out = np.zeros((len(weight), half, half))
        for channel in range(len(weight)):
            for x in range(half):
                for y in range(half):
                    window = maps[:, 2 * x : 2 * x + 2, 2 * y : 2 * y + 2]
                    out[channel, x, y] = (weight[channel] * window).sum() + bias[channel]
        maps = np.maximum(out, 0)
    return float(s["output"][0] @ maps[:, 0, 0] + s["bias"][0])


LOGITS = {
    "mf": mf, "svdpp": svdpp, "fism": fism, "gmf": gmf, "mlp": mlp, "neumf": neumf,
    "convncf": convncf,
}  # fmt: skip
