"""Training of the second model of a blend, before the main model.

The score of a blend is the main model's score plus a weight times the second model's score. If the
caller gives a folder for checkpoints, the trained second model is saved there until the main model
is trained.
"""

from __future__ import annotations

from comet_rec.artefact.checkpoint import BLEND, has_own_checkpoint
from comet_rec.artefact.run import Run
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut
from comet_rec.errors import ConfigError
from comet_rec.evaluation.scoring import held_scores
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


def validation_scores(second: Run, rows: Interactions, held: HeldOut) -> Scorer:
    """Scores of the second model for the validation items `held`; `rows` are the training rows.

    They use the parameters from before the refit, which were not trained on validation rows.
    """
    state = second.state if second.selected is None else second.selected
    return held_scores(base.restored(second.config, state, second.interactions), rows, held)
