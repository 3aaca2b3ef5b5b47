"""The second model of a blend, which is trained before the main model.

The score of a blend is the main model's score plus a weight times the second model's score. If
there is a folder for checkpoints, the finished second model is saved there until the main model is
trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from comet_rec.artefact.checkpoint import BLEND, has_own_checkpoint
from comet_rec.artefact.run import Run, load_run, save_run
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import Split
from comet_rec.errors import ConfigError
from comet_rec.evaluation.scoring import model_scores
from comet_rec.models import base
from comet_rec.models.interfaces import Scorer
from comet_rec.training.checkpoints import Hooks

RUN = "run"
"""Name of the finished second model's folder, inside the folder of its checkpoints."""


def check(config: Config) -> None:
    """Refuse a blend if the main model's score is not an inner product.

    Raises
    ------
    ConfigError
    """
    if config.blend.model == "none":
        return
    if not base.two_tower(config.name):
        raise ConfigError(
            f'blend.model = "{config.blend.model}": a blend needs a model with user and item '
            f"vectors, and {config.name} has none; leave the setting out, or give "
            'blend.model = "none"'
        )


def check_given(second: Run, config: Config) -> None:
    """Refuse a trained second model if its settings differ from the blend's.

    Raises
    ------
    ConfigError
    """
    needed = {"exclude_target": True, **config.blend.settings}
    for key in (f"model.{name}" for name in needed):
        if (value := second.config.get(key)) != needed[key.split(".")[1]]:
            raise ConfigError(
                f"the {second.config.name} run has {key} = {value} and this blend needs "
                f"{needed[key.split('.')[1]]}; train the run with that value, or change the blend"
            )


def check_begun(hooks: Hooks, name: str) -> None:
    """Refuse to resume a blend if its finished second model is not in the folder.

    Raises
    ------
    ConfigError
    """
    folder = hooks.checkpoints
    if folder is None or not hooks.resume or not has_own_checkpoint(folder):
        return
    if not (folder / BLEND / RUN).is_dir():
        raise ConfigError(
            f"{folder}: this training began with a given {name} run, or in another version; give "
            "the same run, or remove the folder to start anew"
        )


def waiting(config: Config, data: Split | Interactions, hooks: Hooks) -> Run | None:
    """Finished second model of a stopped training, or None if there is none.

    Raises
    ------
    ConfigError
        When it was trained with other settings or other data.
    """
    place = _place(hooks)
    if place is None or not place.is_dir():
        return None
    run = load_run(place)
    split, log = (data, data.interactions) if isinstance(data, Split) else (None, data)
    same = run.config.to_toml() == config.to_toml()
    same &= run.interactions.fingerprint == log.fingerprint
    most = max(run.config.train.epochs, run.config.train.full_epochs)
    same &= run.epochs <= most
    if not same or (run.split.hash if run.split else "") != (split.hash if split else ""):
        raise ConfigError(
            f"{place.parent.parent}: holds a {config.name} with other settings or other data; give "
            "the same command, or remove the folder to start anew"
        )
    return run


def keep(run: Run, hooks: Hooks) -> Run:
    """Save the finished second model, remove its checkpoints, and return its run."""
    place = _place(hooks)
    if place is not None:
        save_run(run, place)
        for path in place.parent.iterdir():
            if path != place:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return run


def _place(hooks: Hooks) -> Path | None:
    return None if hooks.checkpoints is None else hooks.checkpoints / RUN


def validation_scores(second: Run, rows: Interactions) -> Scorer:
    """Scores of the second model, with its parameters from before the refit."""
    state = second.state if second.selected is None else second.selected
    return model_scores(base.restored(second.config, state, second.interactions), rows)
