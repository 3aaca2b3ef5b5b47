"""ONNX graphs of a run: the user tower from histories to user vectors, and the score.

The tower is the code of the models, traced by PyTorch, with the direct form of the convolution,
which is one operation of every ONNX runtime. Its input is a row of items for each user, padded in
front. COMET reads the last places of a row. FISM and SVD++ read all of it, in any order.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec.artefact.run import Run
from comet_rec.data.histories import fold_in
from comet_rec.errors import ConfigError
from comet_rec.estimators.newcomers import folded_in, reads_histories
from comet_rec.export.index import sample
from comet_rec.export.vectors import check_vectors, write_vectors
from comet_rec.models import base

TOWER, SCORE = "user_tower.onnx", "score.onnx"
TOLERANCE = 1e-5
"""Largest difference of a score from the library's, as a share of the largest score."""
MOST_INSIDE = 2**30
"""Bytes of parameters above which they are stored beside the graph; protobuf allows 2 GiB."""
BLOCK_BYTES = 2**26
"""Memory of the scores, or of the embeddings of histories, that are computed at a time."""
DIRECT = {"model.convolution": "direct"}

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Compute = Callable[..., Float32]


class UserTower(nn.Module):
    """User vectors from padded histories, as `recommend_for_history` computes them.

    Parameters
    ----------
    run : Run
        Run whose model, or whose blended second model, reads histories.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        config = run.config
        if next(iter(DIRECT)) in config.setting_names():
            config = config.with_settings(DIRECT)
        models = [base.restored(config, run.state, run.interactions)]
        self.scales = [1.0]
        if run.blend is not None:
            models.append(run.second_model)
            self.scales.append(run.blend.weight)
        self.models = nn.ModuleList(models)
        self.pad = run.interactions.n_items

    def forward(self, histories: Tensor) -> Tensor:
        """Vectors [B, W] from rows of items, int64 [B, L], padded in front with the pad index n."""
        models: Any = self.models
        parts = []
        for model, scale in zip(models, self.scales, strict=True):
            if not reads_histories(model):
                parts.append(torch.zeros((histories.shape[0], model.weight.shape[0])))
                continue
            rows, settings = histories, model.histories
            if settings.policy != "full":
                # The last N places of each row, after N pads in front, since L may be below N.
                rows = nnf.pad(rows, (settings.length, 0), value=self.pad)  # [B, N + L]
                rows = rows.narrow(1, histories.shape[1], settings.length)  # [B, N]
            parts.append(model.encode_users(None, rows) * (model.weight * scale))
        return torch.cat(parts, dim=1)


class Score(nn.Module):
    """Scores [B, I] of user vectors [B, W] and item vectors [I, W]."""

    def forward(self, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """Inner products of all user vectors with all item vectors."""
        return nnf.linear(user_vectors, item_vectors)


def write_graphs(run: Run, version: str, folder: Path) -> dict[str, Any]:
    """Write the vectors of a run and its graphs; returns what `about.json` says.

    Raises
    ------
    ConfigError
        When the run has no vectors, a library is missing, or the graphs' scores differ from those
        of the library.
    """
    check_vectors(run)
    assert run.item_vectors is not None
    if run.config.name == "comet" and run.config.model.layers > 1:
        raise ConfigError(
            f"model.layers = {run.config.model.layers}: an ONNX graph holds one layer; train with "
            "model.layers = 1, or export with --to npy or hub"
        )
    _check_installed()
    width = run.item_vectors.shape[1]
    models = [run.model] if run.blend is None else [run.model, run.second_model]
    two_users, two_items = torch.zeros(2, width), torch.zeros(3, width)
    _write(
        Score(), (two_users, two_items), folder / SCORE,
        {"user_vectors": "users", "item_vectors": "items"}, "scores",
    )  # fmt: skip
    graphs: dict[str, Any] = {
        SCORE: {
            "inputs": {"user_vectors": "float32 [B, W]", "item_vectors": "float32 [I, W]"},
            "outputs": {"scores": "float32 [B, I]"},
        }
    }
    if any(map(reads_histories, models)):
        rows = torch.zeros((2, 3), dtype=torch.int64)
        _write(UserTower(run), (rows,), folder / TOWER, {"histories": "users"}, "user_vectors")
        graphs[TOWER] = {
            "inputs": {"histories": "int64 [B, L]"},
            "outputs": {"user_vectors": "float32 [B, W]"},
            "pad": run.interactions.n_items,
            "reads": [_reads(model) for model in models],
        }
    parity, users = _parity(run, folder, TOWER in graphs)
    if not parity <= TOLERANCE:
        raise ConfigError(
            f"a score of the graphs differs from the library's by {parity:.1e} of the largest "
            f"score, and {TOLERANCE:.0e} is allowed; report this with the versions of onnxruntime "
            "and torch"
        )
    about = {"graphs": graphs, "parity": float(f"{parity:.1e}"), "users checked": users}
    return write_vectors(run, version, folder, about)


def _reads(model: Any) -> str | None:
    """In words, which places of a row of items a model reads."""
    if not reads_histories(model):
        return None
    settings = model.histories
    return "all" if settings.policy == "full" else f"the last {settings.length}"


def _parity(run: Run, folder: Path, tower: bool) -> tuple[float, int]:
    """Largest difference of the graphs' scores from the library's, and the number of users.

    The difference is a share of the largest absolute score. Users are scored by their stored
    vectors, and with a tower also as new users, by their known items.
    """
    assert run.user_vectors is not None
    assert run.item_vectors is not None
    users, items = sample(run), run.item_vectors
    ways: list[tuple[Float32, Tensor]] = [
        (run.user_vectors.numpy()[users], run.user_vectors[torch.from_numpy(users)])
    ]
    if tower:
        starts = run.known.user_starts
        histories = [run.known.items[starts[u] : starts[u + 1]].astype(np.int64) for u in users]
        vectors = folded_in(run, histories, torch.device("cpu"))
        assert isinstance(vectors, Tensor)
        ways.append((_encoded(session(folder / TOWER), run, histories), vectors))
    score = session(folder / SCORE)
    worst = largest = 0.0
    size = max(1, BLOCK_BYTES // (8 * len(items)))
    for ours, theirs in ways:
        for first in range(0, len(users), size):
            block = slice(first, first + size)
            scores = score(user_vectors=ours[block], item_vectors=items.numpy())
            exact = (theirs[block].double() @ items.double().T).numpy()
            worst = max(worst, float(np.abs(scores - exact).max()))
            largest = max(largest, float(np.abs(exact).max()))
    return worst / max(largest, 1e-30), len(users)


def _encoded(tower: Compute, run: Run, histories: list[Int64]) -> Float32:
    """Vectors of histories by the graph of the tower, in blocks, float32 [Q, W]."""
    rows = graph_rows(run, histories)
    size = max(1, BLOCK_BYTES // (512 * max(rows.shape[1], 1)))
    parts = [tower(histories=rows[i : i + size]) for i in range(0, len(rows), size)]
    return np.concatenate(parts)


def graph_rows(run: Run, histories: list[Int64]) -> Int64:
    """Rows of items that the tower's graph reads as the library reads these histories.

    The result is int64 [Q, L], padded in front with n. The items that COMET reads stand last. For
    most presets they are the latest ones. For the policy "sampled" they are a random subset.
    """
    n = run.interactions.n_items
    settings = run.model.histories if reads_histories(run.model) else None
    if settings is not None and settings.policy != "full":
        chosen = fold_in(histories, settings, n)
        assert isinstance(chosen, Tensor)
        ordered = []
        for history, row in zip(histories, chosen.numpy(), strict=True):
            read = row[row < n].astype(np.int64)
            ordered.append(np.concatenate([history[~np.isin(history, read)], read]))
        histories = ordered
    length = max((len(history) for history in histories), default=0)
    rows = np.full((len(histories), length), n, dtype=np.int64)
    for row, history in zip(rows, histories, strict=True):
        row[length - len(history) :] = history
    return rows


def session(path: Path) -> Compute:
    """Function that computes an ONNX graph on the CPU, from its inputs by name."""
    import onnxruntime

    graph = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def compute(**inputs: npt.NDArray[Any]) -> Float32:
        output: Float32 = graph.run(None, inputs)[0]
        return output

    return compute


def _write(
    module: nn.Module, example: tuple[Tensor, ...], path: Path, inputs: dict[str, str], output: str
) -> None:
    """Trace a module to an ONNX file.

    `inputs` maps each name of an input to the name of its first, dynamic axis. The second axis of
    the histories is dynamic too.
    """
    shapes = []
    for name, axis in inputs.items():
        shape = {0: torch.export.Dim(axis)}
        if name == "histories":
            shape[1] = torch.export.Dim("length")
        shapes.append(shape)
    with _silent():
        program = torch.onnx.export(
            module.eval(), example, dynamo=True, verbose=False, input_names=list(inputs),
            output_names=[output], dynamic_shapes=tuple(shapes),
        )  # fmt: skip
        assert program is not None
        size = sum(parameter.nbytes for parameter in module.parameters())
        program.save(path, external_data=size > MOST_INSIDE)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence notes of PyTorch's exporter about its own parts, such as a missing torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_installed() -> None:
    """Check that the libraries of the extra `export` are installed.

    Raises
    ------
    ConfigError
        When one is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"ONNX graphs need {error.name}, which is not installed; "
            'pip install "comet-rec[export]"'
        ) from None
