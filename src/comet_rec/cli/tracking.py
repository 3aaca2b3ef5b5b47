"""Trackers: figures of a training, sent to TensorBoard or MLflow while it runs (`--tracker`)."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from comet_rec.config import unknown
from comet_rec.errors import CometWarning, ConfigError

if TYPE_CHECKING:
    from comet_rec.artefact.run import Run
    from comet_rec.training.trainer import Progress


class Sink(Protocol):
    """Where figures go: TensorBoard or MLflow."""

    def figures(self, values: Mapping[str, float], epoch: int) -> None:
        """Send named figures of an epoch."""

    def settings(self, values: Mapping[str, Any]) -> None:
        """Send the settings of the training."""

    def close(self, *, failed: bool) -> None:
        """End the record of this training."""


class TensorBoard:
    """Event files in a folder beside the run, such as `runs/shop.tensorboard`."""

    def __init__(self, out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Not inside the run, because a run is replaced as a whole when it is saved.
        place = out.resolve()
        self.writer: Any = SummaryWriter(str(place.with_name(f"{place.name}.tensorboard")))

    def figures(self, values: Mapping[str, float], epoch: int) -> None:
        """Send named figures of an epoch."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def settings(self, values: Mapping[str, Any]) -> None:
        """Send the settings as a text."""
        text = "\n".join(f"    {name} = {value}" for name, value in values.items())
        self.writer.add_text("settings", text)

    def close(self, *, failed: bool) -> None:
        """Close the event file."""
        self.writer.close()


class MLflow:
    """A run of MLflow, at the place and in the experiment that MLflow's own variables name."""

    def __init__(self, out: Path) -> None:
        import mlflow

        self.mlflow: Any = mlflow
        mlflow.start_run(run_name=out.resolve().name)

    def figures(self, values: Mapping[str, float], epoch: int) -> None:
        """Send named figures of an epoch."""
        self.mlflow.log_metrics(dict(values), step=epoch)

    def settings(self, values: Mapping[str, Any]) -> None:
        """Send the settings as parameters."""
        self.mlflow.log_params(dict(values))

    def close(self, *, failed: bool) -> None:
        """End the run, as failed if the training did not finish."""
        self.mlflow.end_run("FAILED" if failed else "FINISHED")


SINKS: dict[str, Callable[[Path], Sink]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
"""Trackers by name. The extra of the same name installs what a tracker needs."""


class Tracker:
    """Sends the figures of a training; a fault of the tracker never ends the training.

    Parameters
    ----------
    name : str or None
        "tensorboard" or "mlflow"; None sends nothing.
    out : Path
        Folder of the run, whose name the tracker shows.

    Raises
    ------
    ConfigError
        When there is no such tracker, or its package is missing.
    """

    def __init__(self, name: str | None, out: Path) -> None:
        if name is not None and name not in SINKS:
            raise ConfigError(unknown("tracker", name, list(SINKS)))
        if name is not None and find_spec(name) is None:
            raise ConfigError(
                f'--tracker {name}: {name} is not installed; pip install "comet-rec[{name}]"'
            )
        self.name = name
        self.out = out
        self.sink: Sink | None = None

    def open(self) -> None:
        """Begin the record of this training.

        Raises
        ------
        ConfigError
            When the tracker cannot be opened, e.g. because its server does not answer.
        """
        if self.name is None:
            return
        try:
            self.sink = SINKS[self.name](self.out)
        except Exception as error:  # of the network, a database, a disk
            raise ConfigError(
                f"--tracker {self.name}: {_reason(error)}; fix it, or leave --tracker out"
            ) from None

    def beside(self, show: Callable[[str, Progress], None]) -> Callable[[str, Progress], None]:
        """Report function that calls `show`, and sends the figures of every finished epoch."""

        def report(stage: str, progress: Progress) -> None:
            show(stage, progress)
            if progress.finished_epoch:
                figures = {"training loss": progress.loss, **(progress.validation or {})}
                self._figures(stage, figures, progress.epoch)

        return report

    def result(self, run: Run) -> None:
        """Send the settings and the test metrics of a finished training."""
        rooms = {"model": run.config.model, "blend": run.config.blend, "train": run.config.train}
        settings = {"model": run.config.name, "preset": run.config.preset, "seed": run.config.seed}
        for room, config in rooms.items():
            settings |= {f"{room}.{key}": value for key, value in asdict(config).items()}
        self._try(lambda sink: sink.settings({**settings, "data": run.source}))
        metrics = run.metrics or {}
        for kind in ("sampled", "full"):
            self._figures(f"test {kind}", metrics.get(kind) or {}, run.epochs)

    def close(self, *, failed: bool) -> None:
        """End the record of this training."""
        self._try(lambda sink: sink.close(failed=failed))

    def _figures(self, group: str, figures: Mapping[str, float], epoch: int) -> None:
        # Names of both trackers hold letters, digits and "_-./" only: NDCG@10 becomes NDCG_10.
        named = {re.sub(r"[^-/\w.]", "_", f"{group}/{k}"): v for k, v in figures.items()}
        if named:
            self._try(lambda sink: sink.figures(named, epoch))

    def _try(self, send: Callable[[Sink], None]) -> None:
        if self.sink is None:
            return
        try:
            send(self.sink)
        except Exception as error:  # a server that is away must not cost hours of training
            self.sink = None
            warnings.warn(
                f"--tracker {self.name}: {_reason(error)}; the training goes on without it",
                CometWarning,
                stacklevel=4,
            )


@contextlib.contextmanager
def tracking(name: str | None, out: Path) -> Iterator[Tracker]:
    """Context with a tracker for the training of the run `out`; see `Tracker`."""
    tracker = Tracker(name, out)
    try:
        yield tracker
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)


def _reason(error: Exception) -> str:
    from comet_rec.artefact.untrusted import one_line

    return one_line(str(error)) or type(error).__name__
