"""Training of the second model of a blend, before the main model.

The score of a blend is the main model's score plus a weight times the second model's score. If the
caller gives a folder for checkpoints, the trained second model is saved there until the main model
is trained.
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
"""Name of the folder that holds the trained second model, inside the folder of its checkpoints."""


def check(config: Config) -> None:
    """Refuse a blend if the main model's score is not an inner product of two vectors.

    Raises
    ------
    ConfigError
    """
    if config.blend.model == "none":
        return
    if not base.two_tower(config.name):
        raise ConfigError(
            f'blend.model = "{config.blend.model}": a blend needs a model with user and item '
            f"vectors, and {config.name} has none; leave blend.model "
            'out, or give blend.model = "none"'
        )


def check_given(second: Run, config: Config) -> None:
    """Refuse an already trained second model if its settings differ from those of the blend.

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
    """Check that a stopped blend can resume: its trained second model must be in the folder.

    `name` is the second model's name, for the message.

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
    """The second model that an earlier, stopped training of this blend has finished.

    The result is None if the folder for checkpoints holds no such model.

    Raises
    ------
    ConfigError
        When that model was trained with other settings or other data.
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
            f"{place.parent.parent}: holds a {config.name} model that was trained with other "
            "settings or other data; give the same command, or remove the folder to start anew"
        )
    return run


def keep(run: Run, hooks: Hooks) -> Run:
    """Save the trained second model, remove its checkpoints, and return it."""
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
    """Scores of the second model for validation; `rows` are the training rows.

    They use the parameters from before the refit, which were not trained on validation rows.
    """
    state = second.state if second.selected is None else second.selected
    return model_scores(base.restored(second.config, state, second.interactions), rows)
