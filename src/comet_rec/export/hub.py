"""A run in the layout of model hubs: the files of the run, `config.json` and a model card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comet_rec import __version__
from comet_rec.artefact.folder import digest_of, opened
from comet_rec.artefact.run import VERSION_DIGITS, Run
from comet_rec.errors import ArtefactError
from comet_rec.export.vectors import write_json
from comet_rec.text import markdown, printable

CONFIG, CARD = "config.json", "README.md"
PAPER = "https://arxiv.org/abs/2007.14129v1"
KINDS = {"sampled": "positive + negatives", "full": "full ranking"}
"""Kinds of candidates of a metric, and their heading in the card."""


def write_hub(
    run: Run, version: str, source: Path, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copy a run to a folder, and add a config and a model card.

    Returns
    -------
    config : dict
        What `config.json` says.
    entries : dict
        Entries of the run's manifest. With them, the folder is a run that `load_model` reads.
    """
    with opened(source) as (members, manifest):
        if digest_of(manifest)[:VERSION_DIGITS] != version:
            raise ArtefactError(f"{source}: was replaced during the export; try again")
        for name in manifest["files"]:
            (folder / name).write_bytes(members[name].text(members[name].size))
    config = {
        "library_name": "comet-rec",
        "comet_rec": __version__,
        "version": version,
        "model_type": run.config.name,
        "preset": run.config.preset,
        "seed": run.config.seed,
        "epochs": run.epochs,
        "users": run.interactions.n_users,
        "items": run.interactions.n_items,
        "model": asdict(run.config.model),
        "blend": asdict(run.config.blend),
        "train": asdict(run.config.train),
    }
    write_json(folder / CONFIG, config)
    (folder / CARD).write_text(card(run, version), encoding="utf-8")
    entries = {key: value for key, value in manifest.items() if key not in ("schema", "files")}
    return config, entries


def card(run: Run, version: str) -> str:
    """Model card in Markdown, with YAML in front for the hub."""
    name, log = run.config.name, run.interactions
    source = _source(run)
    front: dict[str, Any] = {
        "library_name": "comet-rec",
        "tags": ["recommendation", "collaborative-filtering", "implicit-feedback", name],
    }
    if run.metrics is not None:
        front["model-index"] = [_results(run, source)]
    # JSON is YAML too, and quotes whatever a name may hold.
    lines = ["---", *(f"{key}: {json.dumps(front[key], ensure_ascii=False)}" for key in front)]
    blend = "" if run.blend is None else f", blended with {run.config.blend.model}"
    lines += [
        "---",
        "",
        f"# {name} on {markdown(source)}",
        "",
        f"A recommender for implicit feedback: `{name}`{blend}, preset `{run.config.preset}`, "
        f"version `{version}`. It was trained by comet-rec, which implements COMET "
        f"([paper]({PAPER})) and the models it is compared with.",
        "",
        "## Load it",
        "",
        "```python",
        "import comet_rec as cr  # pip install comet-rec",
        "",
        'model = cr.load_model("FOLDER")  # the folder of this file',
        "model.recommend(k=10)  # lists of all users",
        "```",
        "",
        "The weights are in `model.safetensors`; no file needs pickle.",
        "",
        "## Data",
        "",
        f"{markdown(source)}: {len(log):,} interactions of {log.n_users:,} users and "
        f"{log.n_items:,} items.",
        "",
        "**This folder holds the interactions and the ids of all users.** "
        "`interactions.safetensors` and `ids.safetensors` are part of the model, because lists "
        "leave out seen items. Publish the folder only if you may publish the log.",
        "",
        "## Figures",
        "",
        *_figures(run),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in _limits(run)),
        "",
        "## Licence",
        "",
        "Add a line `license: …` at the top: the licence of weights depends on that of the log.",
    ]
    return "\n".join(lines) + "\n"


def _source(run: Run) -> str:
    """Name of the log without its folder, which is nobody's business."""
    return printable(Path(run.source).name) or "a log without a name"


def _results(run: Run, source: str) -> dict[str, Any]:
    """The metrics in the form that hubs read."""
    assert run.metrics is not None
    found = []
    for kind, words in KINDS.items():
        for metric, value in (run.metrics.get(kind) or {}).items():
            title = f"{metric}, {words}"
            found.append({"type": metric, "name": title, "value": round(value, 4)})
    task = {"type": "recommendation", "name": "Top-k recommendation"}
    data = {"type": source, "name": source}
    return {"name": run.config.name, "results": [{"task": task, "dataset": data, "metrics": found}]}


def _figures(run: Run) -> list[str]:
    """Lines of the card about metrics and protocol."""
    if run.metrics is None:
        return ["Nothing was held out of the training, so there are no figures."]
    metrics, lines = run.metrics, []
    if run.split is not None:
        protocol = run.split.protocol
        lines += [
            f"One test item of each of {len(run.split.test):,} users, by the split "
            f"`{protocol.split}`, with {protocol.negatives} negatives drawn with seed "
            f"{protocol.seed}. Hash of the protocol: `{run.split.hash[:12]}`.",
            "",
        ]
    kinds = [kind for kind in KINDS if metrics.get(kind)]
    lines.append("| | " + " | ".join(KINDS[kind] for kind in kinds) + " |")
    lines.append("|---" * (len(kinds) + 1) + "|")
    for name in metrics[kinds[0]] if kinds else ():
        cells = []
        for kind in kinds:
            error = (metrics.get(f"{kind}_se") or {}).get(name)
            cells.append(f"{metrics[kind][name]:.4f}" + (f" ± {error:.4f}" if error else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "± is one standard error over users."]
    if run.final:
        lines.append("The figures are those of the model before its last training on all rows.")
    if run.updates:
        lines.append("The figures are those of the model before its updates.")
    return lines


def _limits(run: Run) -> list[str]:
    """What a reader must know before using the model."""
    limits = [
        "It lists items of its log alone. New items need `comet-rec update` or a new training.",
        "Scores are logits. They order the items of one user, and say nothing between users.",
        "Figures hold for this log and this protocol. Metrics over sampled negatives are far "
        "higher than those of a full ranking.",
        "Like all models of clicks, it repeats what was popular or shown often in its log.",
    ]
    if not run.model.folds_in:
        limits.append("It has no lists for users outside its log.")
    return limits
