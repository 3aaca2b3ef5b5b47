"""The command ``comet-rec export``: a run in a form that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from comet_rec.cli import options
from comet_rec.cli.evaluate import Run
from comet_rec.cli.terminal import folded, show


def export(
    run: Run,
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="FORM",
            help="npy: vectors, ids and seen items; onnx: these and graphs of the user tower and "
            "the score; faiss: these and an approximate index; hub: the run with a model card.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder to write.")],
) -> None:
    """Write a run in a form that other programs read: NumPy, ONNX, faiss, a model hub."""
    from comet_rec.export import folder

    options.check_folder(out)
    about = folder.export(run, to, out)
    for line in _lines(to, about):
        show(folded(line, 2))
    show(f"written to {out}")
    options.say_notes(_notes(to, about), False)


def _lines(to: str, about: dict[str, Any]) -> list[str]:
    """Lines about an export, from what its folder says."""
    size = f"{about['users']:,} users, {about['items']:,} items"
    if to == "hub":
        return [f"{about['model_type']}: {size}, with a model card"]
    lines = [f"{about['model']}: {size}, vectors of {about['width']} numbers"]
    if to == "onnx":
        lines.append(f"graphs: {', '.join(about['graphs'])}")
        lines.append(
            f"largest difference from the library: {about['parity']:.0e} of the largest score, "
            f"over {about['users checked']:,} users"
        )
    if to == "faiss":
        index = about["index"]
        users, seconds = index["users measured"], index["seconds"]
        lines.append(
            f"recall@10 {index['recall@10']:.3f} against exact search, over {users:,} users"
        )
        lines.append(f"efSearch {index['efSearch']}, built and measured in {seconds:.1f} s")
    return lines


def _notes(to: str, about: dict[str, Any]) -> list[str]:
    """What a user must know before using an export."""
    if to == "hub":
        held = "the interactions and ids of all users; publish it only if you may publish the log"
        return [f"the folder holds {held}"]
    if to == "onnx" and "user_tower.onnx" not in about["graphs"]:
        return [f"{about['model']} reads no histories, so there is no graph for new users"]
    return []
