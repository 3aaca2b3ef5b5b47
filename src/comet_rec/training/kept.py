"""Finished runs that wait in the folder of checkpoints until the training after them is done.

They are the second model of a blend, and the measured run before a final training.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from comet_rec.artefact.run import Run, load_run, save_run
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import Split
from comet_rec.errors import ArtefactError, ConfigError


def keep(run: Run, place: Path) -> None:
    """Save a run to the folder `place`; then remove all other content of its parent folder.

    That content is the checkpoints of the run's own training, from which nothing resumes any more.

    Raises
    ------
    ArtefactError
        When the folder cannot be written or cleared.
    """
    save_run(run, place)
    try:
        for path in place.parent.iterdir():
            if path != place:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise ArtefactError(f"{place.parent}: cannot be cleared: {error.strerror}") from None


def waiting(place: Path, config: Config, data: Split | Interactions) -> Run | None:
    """The run in the folder `place`; None if there is none.

    Raises
    ------
    ConfigError
        When the run was trained with other settings or other data.
    """
    if not place.is_dir():
        return None
    run = load_run(place)
    split, log = (data, data.interactions) if isinstance(data, Split) else (None, data)
    same = run.config.to_toml() == config.to_toml()
    same &= run.interactions.fingerprint == log.fingerprint
    most = max(run.config.train.epochs, run.config.train.full_epochs)
    same &= run.epochs <= most
    if not same or (run.split.hash if run.split else "") != (split.hash if split else ""):
        raise ConfigError(
            f"{place.parent}: holds a {config.name} model that was trained with other "
            "settings or other data; give the same command, or remove the folder to start anew"
        )
    return run
