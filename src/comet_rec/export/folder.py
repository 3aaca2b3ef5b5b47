"""Export of a run to a new folder, which is written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from comet_rec.artefact.folder import write_folder
from comet_rec.artefact.run import Run, load_with_version
from comet_rec.errors import InputError, argument, did_you_mean
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.export.graphs import write_graphs
from comet_rec.export.hub import write_hub
from comet_rec.export.index import write_index
from comet_rec.export.vectors import write_vectors
from comet_rec.text import shortened

Write = Callable[[Run, str, Path], dict[str, Any]]
"""Function that fills a new folder from a run and its version, and returns what it measured."""


def _vectors(run: Run, version: str, folder: Path) -> dict[str, Any]:
    return write_vectors(run, version, folder, {})


WRITERS: dict[str, Write] = {"npy": _vectors, "onnx": write_graphs, "faiss": write_index}
FORMS = (*WRITERS, "hub")
"""Forms that `export` knows."""


@undisturbed
def export(source: Path, to: str, out: Path) -> dict[str, Any]:
    """Write a run in another form to a new folder.

    Parameters
    ----------
    source : Path
        Folder of the run.
    to : {"npy", "onnx", "faiss", "hub"}
        - "npy": user and item vectors with ids, and the seen items.
        - "onnx": the same, and graphs of the user tower and of the score.
        - "faiss": the same, and an approximate index over the item vectors.
        - "hub": the run itself, with a model card and a config as model hubs expect them.
    out : Path
        Folder to write; it must not exist, or be empty.

    Returns
    -------
    dict
        What `about.json` says; for "hub", what `config.json` says.

    Raises
    ------
    InputError
        When `to` is unknown, `out` is not empty, the run cannot be read, the model has no such
        form, a library is missing, or a check of the result failed.
    """
    if to not in FORMS:
        hint = did_you_mean(to, FORMS)
        raise InputError(f"{argument('to', shortened(to))}: {hint}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a new folder as out")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: exists and is not empty; remove it, or give another folder")
    run, version = load_with_version(source)
    about: dict[str, Any] = {}

    def write(folder: Path) -> dict[str, Any]:
        entries: dict[str, Any] = {"export": to}
        if to == "hub":
            found, entries = write_hub(run, version, source, folder)
        else:
            found = WRITERS[to](run, version, folder)
        about.update(found)
        return entries

    write_folder(out, write)
    return about
