"""SASRec beside the implementation of RecTools: the same weights, and the same short schedule.

    python -m venv .venv-rectools
    .venv-rectools/bin/pip install "rectools[torch]==0.19.0" torch==2.13.0
    python benchmarks/sasrec_rectools.py ml-100k --peer .venv-rectools/bin/python --epochs 30

First both get the same random weights, and the largest difference of their logits is printed. Then
both train with a full softmax, K = 64, two blocks, two heads, dropout .2, N = 50 and Adam at .001.
They read each user's latest 51 training rows, in batches of about as many rows. The full ranking of
the validation items leaves all training rows out. RecTools does not scale the embeddings by √K by
default; --scaled makes it do so.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

K, N, HEADS, BLOCKS, DROPOUT, RATE, USERS = 64, 50, 2, 2, 0.2, 1e-3, 80
CATALOGUE = 300
"""Items of the models with the same weights."""


def own(data: str, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Train this library's SASRec; write the rows for the other one to `folder`."""
    import comet_rec as cr
    from comet_rec.config import Config, TrainConfig
    from comet_rec.evaluation.ranking import full_ranks
    from comet_rec.evaluation.scoring import model_scores
    from comet_rec.models import base
    from comet_rec.models.sasrec import SASRecConfig
    from comet_rec.training.fit import batches_of
    from comet_rec.training.trainer import Trainer

    log = cr.read(data) if Path(data).exists() else cr.load(data)
    split = cr.leave_one_out(log)
    train, held = split.train, split.validation
    counts = np.diff(train.user_starts)
    from_end = np.repeat(train.user_starts[1:], counts) - np.arange(len(train))
    rows = train.select(from_end <= N + 1)
    np.savez(
        folder / "rows.npz", users=rows.users, items=rows.items, seen_users=train.users,
        seen_items=train.items, held_users=held.users, positives=held.positives,
    )  # fmt: skip
    settings = SASRecConfig(
        embedding_dim=K, history_length=N, heads=HEADS, blocks=BLOCKS, dropout=DROPOUT
    )
    size = round(USERS * len(rows) / rows.n_users)
    config = Config(
        name="sasrec", preset="", model=settings, seed=seed,
        train=TrainConfig(loss="softmax", batch_size=size, learning_rate=RATE),
    )  # fmt: skip
    model = base.build("sasrec", settings, log.n_users, log.n_items, seed)
    batches = batches_of(rows, config, model)
    began = time.perf_counter()
    Trainer(model, batches, config.train, seed=seed, device=torch.device("cpu")).run(epochs)
    seconds = time.perf_counter() - began
    ranks = full_ranks(model_scores(model, rows), held, train)
    means = {name: float(ranks.figure(name, "expected").mean()) for name in ("HR@10", "NDCG@10")}
    return {"who": "comet-rec", "seconds": round(seconds, 1), **means}


def peer(seed: int, epochs: int, folder: Path, *, scaled: bool) -> dict[str, Any]:
    """Train RecTools' SASRec on the rows in `folder`."""
    import pandas as pd
    from pytorch_lightning import Trainer, seed_everything
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    seed_everything(seed)
    random.seed(seed)
    data = np.load(folder / "rows.npz")
    order = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(data["users"])), unit="s")
    frame = {"user_id": data["users"], "item_id": data["items"], "weight": 1.0, "datetime": order}
    dataset = Dataset.construct(pd.DataFrame(frame))

    def trainer() -> Any:
        return Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False,
        )  # fmt: skip

    model = SASRecModel(
        n_blocks=BLOCKS, n_heads=HEADS, n_factors=K, dropout_rate=DROPOUT, session_max_len=N,
        loss="softmax", lr=RATE, batch_size=USERS, epochs=epochs, get_trainer_func=trainer,
        pos_encoding_kwargs={"use_scale_factor": scaled},
    )  # fmt: skip
    began = time.perf_counter()
    model.fit(dataset)
    seconds = time.perf_counter() - began
    # More places than anyone has seen items, since RecTools knows only the rows it was trained on.
    places = 10 + int(np.bincount(data["seen_users"]).max())
    lists = model.recommend(data["held_users"], dataset, k=places, filter_viewed=False)
    seen = set(zip(data["seen_users"].tolist(), data["seen_items"].tolist(), strict=True))
    positives = dict(zip(data["held_users"].tolist(), data["positives"].tolist(), strict=True))
    gains = []
    for user, group in lists.sort_values("rank").groupby("user_id"):
        items = [item for item in group["item_id"] if (user, item) not in seen][:10]
        if positives[user] in items:
            gains.append(1 / np.log2(2 + items.index(positives[user])))
    means = {"HR@10": len(gains) / len(positives), "NDCG@10": sum(gains) / len(positives)}
    return {"who": "RecTools", "seconds": round(seconds, 1), **means}


def same_weights() -> dict[str, Any]:
    """Largest difference of all logits, without pads and with pads that the attention masks."""
    from rectools.models.nn.transformers.net_blocks import LearnableInversePositionalEncoding
    from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers
    from rectools.models.nn.transformers.torch_backbone import TransformerTorchBackbone

    from comet_rec.data.prefixes import Prefixes
    from comet_rec.models.sasrec import SASRec, SASRecConfig

    class Items(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.empty(CATALOGUE + 1, K))  # row 0 is the pad

        def get_all_embeddings(self) -> torch.Tensor:
            return self.table

    class Products(torch.nn.Module):
        def forward(self, states: Any, items: Any, _: Any) -> Any:
            return states @ items.T

    layers = SASRecTransformerLayers(BLOCKS, K, HEADS, DROPOUT)
    positions = LearnableInversePositionalEncoding(True, N, K, use_scale_factor=True)
    items = Items()
    torch.manual_seed(0)
    for module in (layers, positions, items):
        for parameter in module.parameters():
            parameter.data = torch.randn_like(parameter) * 0.2
    for module in layers.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-8  # 1e-5 in RecTools, but for the last one

    state = {
        "item_embedding": items.table[1:],
        "position_embedding": positions.pos_emb.weight.flip(0),
        "norm.weight": layers.last_layernorm.weight,
        "norm.bias": layers.last_layernorm.bias,
    }
    for number, layer in enumerate(layers.transformer_blocks):
        attention, feedforward = layer.multi_head_attn, layer.feed_forward
        parts = {
            "attention_norm": (layer.q_layer_norm.weight, layer.q_layer_norm.bias),
            "feedforward_norm": (layer.ff_layer_norm.weight, layer.ff_layer_norm.bias),
            "query": (attention.in_proj_weight[:K], attention.in_proj_bias[:K]),
            "key_value": (attention.in_proj_weight[K:], attention.in_proj_bias[K:]),
            "output": (attention.out_proj.weight, attention.out_proj.bias),
        }
        for name, (weight, bias) in parts.items():
            norm = name.endswith("norm")
            state[f"blocks.{number}.{name}.{'weight' if norm else 'weights.0'}"] = weight
            state[f"blocks.{number}.{name}.{'bias' if norm else 'biases.0'}"] = bias
        for place, linear in enumerate((feedforward.ff_linear_1, feedforward.ff_linear_2)):
            state[f"blocks.{number}.feedforward.weights.{place}"] = linear.weight
            state[f"blocks.{number}.feedforward.biases.{place}"] = linear.bias
    config = SASRecConfig(embedding_dim=K, history_length=N, heads=HEADS, blocks=BLOCKS)
    model = SASRec(config, 1, CATALOGUE, torch.Generator())
    model.load_state_dict(state)

    differences = {}
    for masked in (False, True):
        histories = torch.randint(0, CATALOGUE, (40, N), dtype=torch.int32)
        if masked:
            histories[torch.arange(N) < torch.randint(0, N, (40, 1))] = CATALOGUE
        sessions = torch.where(histories == CATALOGUE, 0, histories + 1)
        backbone = TransformerTorchBackbone(
            HEADS, DROPOUT, items, positions, layers, Products(), use_key_padding_mask=masked
        ).eval()
        with torch.no_grad():
            expected = backbone({"x": sessions})[histories != CATALOGUE][:, 1:]
            states = model.states(Prefixes.of_padded(histories, CATALOGUE).sequences)
            found = states @ model.item_embedding.T
        differences["with pads" if masked else "without pads"] = float(
            (found - expected).abs().max()
        )
    return {"differences": differences, "standard deviation": float(expected.std())}


def main() -> None:
    """Print a JSON line for each check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="named data set or file")
    parser.add_argument("--peer", type=Path, help="Python with RecTools")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--scaled", action="store_true")
    parser.add_argument("--part", choices=("weights", "fit"), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "weights":
        print(json.dumps(same_weights()))
    elif args.part == "fit":
        print(json.dumps(peer(args.seed, args.epochs, Path(args.data), scaled=args.scaled)))
    else:
        command = [str(args.peer), __file__]
        subprocess.run([*command, "-", "--part", "weights"], check=True)
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(args.seeds):
                print(json.dumps(own(args.data, seed, args.epochs, Path(folder))), flush=True)
                options = ["--part", "fit", "--seed", str(seed), "--epochs", str(args.epochs)]
                options += ["--scaled"] if args.scaled else []
                subprocess.run([*command, folder, *options], check=True)


if __name__ == "__main__":
    main()
