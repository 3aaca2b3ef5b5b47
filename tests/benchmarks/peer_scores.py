"""Run by the peers' own Python: scores of implicit and Cornac from our parameters.

python peer_scores.py given.npz found.npz
"""

import sys

import numpy as np
import torch
from cornac.models.ncf.backend_pt import NeuMF
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix


def lists_of_implicit(given):
    model = AlternatingLeastSquares(factors=given["mf.users"].shape[1])
    model.user_factors, model.item_factors = given["mf.users"], given["mf.items"]
    shape = len(model.user_factors), len(model.item_factors)
    seen = csr_matrix((given["seen.data"], given["seen.indices"], given["seen.indptr"]), shape)
    return model.recommend(np.arange(shape[0]), seen, N=10)


def scores_of_cornac(given):
    gmf = given["neumf.gmf.user_embedding"]
    hidden = [len(given[f"neumf.mlp.layers.biases.{n}"]) for n in range(2)]
    width = 2 * given["neumf.mlp.user_embedding"].shape[1]
    items = len(given["neumf.gmf.item_embedding"])
    model = NeuMF(len(gmf), items, gmf.shape[1], layers=[width, *hidden])

    def put(parameter, value):
        parameter.data.copy_(torch.from_numpy(value).view_as(parameter))

    for part, name in ((model.gmf, "gmf"), (model.mlp, "mlp")):
        put(part.user_embedding.weight, given[f"neumf.{name}.user_embedding"])
        put(part.item_embedding.weight, given[f"neumf.{name}.item_embedding"])
    layers = [layer for layer in model.mlp.mlp_model if isinstance(layer, torch.nn.Linear)]
    for n, layer in enumerate(layers):
        put(layer.weight, given[f"neumf.mlp.layers.weights.{n}"])
        put(layer.bias, given[f"neumf.mlp.layers.biases.{n}"])
    last = len(layers)
    output = given[f"neumf.mlp.layers.weights.{last}"][0]
    put(model.logit.weight, np.concatenate([given["neumf.gmf.h"], output])[None])
    put(model.logit.bias, given["neumf.gmf.bias"] + given[f"neumf.mlp.layers.biases.{last}"])
    users = torch.arange(len(gmf)).repeat_interleave(items)
    return torch.logit(model(users, torch.arange(items).repeat(len(gmf)))).view(-1, items)


given = np.load(sys.argv[1])
ids, scores = lists_of_implicit(given)
with torch.no_grad():
    pairs = scores_of_cornac(given).numpy()
np.savez(sys.argv[2], ids=ids, scores=scores, neumf=pairs)
