"""The training loop, which can stop and resume after any step."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from comet_rec import processes, verify
from comet_rec.config import Config, TrainConfig
from comet_rec.data import arrays
from comet_rec.data.arrays import Array
from comet_rec.data.batch_parts import Role, compacted, part_of_users
from comet_rec.data.batches import Batch, Batches
from comet_rec.errors import NonFiniteError, TrainingInterrupted
from comet_rec.models import base
from comet_rec.precision import matmul_precision
from comet_rec.random import torch_seed
from comet_rec.training.losses import objective
from comet_rec.training.tables import Layout, Tables


@dataclass
class Progress:
    """Progress of a training, for progress displays and the log.

    Parameters
    ----------
    epoch : int
        Number of finished epochs.
    epochs : int
        Largest number of epochs.
    batch, batches : int
        Number of finished batches in this epoch, and number of all its batches.
    loss, positives, train_seconds
        Mean loss, number of positives and duration in seconds of this epoch's steps so far.
    validation : mapping or None
        Validation metrics at the end of an epoch.
    finished_epoch : bool
        True in the report at the end of an epoch, false in the report after a step.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    positives: int = 0
    train_seconds: float = 0.0
    validation: Mapping[str, float] | None = None
    finished_epoch: bool = False

    @property
    def done(self) -> float:
        """Number of finished epochs, including the finished share of the current epoch."""
        return self.epoch + (0.0 if self.finished_epoch else self.batch / max(self.batches, 1))

    @property
    def current(self) -> int:
        """Number of the epoch that is running or has just ended, counted from 1."""
        return min(self.epoch + (not self.finished_epoch), self.epochs)


@dataclass
class TrainState:
    """Position in the training loop, and the best epoch so far.

    A checkpoint holds this state and the states of the model and the optimizer.

    Parameters
    ----------
    epoch, batch : int
        Epoch and batch of the next step, counted from 0.
    best_epoch : int
        Number of finished epochs at the best validation; 0 before the first validation.
    best : dict of Tensor or None
        State of the model at the best validation.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    positives: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_validation: dict[str, float] = field(default_factory=dict)
    best: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class Part:
    """The part of a training step that this process computes.

    Parameters
    ----------
    batch : Batch
        The pairs of the users of this process; with one process, the whole batch.
    positives, terms : int
        Numbers of positives and of terms of the loss, in the batches of all processes.
    rows : mapping of {"user", "item"} to int64 [R]
        Rows of the tables that the batch reads, if tables are updated by rows. The batch then has
        the numbers of these rows in place of indices.
    """

    batch: Batch
    positives: int
    terms: int
    rows: Mapping[Role, Tensor] | None = None


class Trainer:
    """Trains a neural model on batches, with validation and early stopping.

    Parameters
    ----------
    model : nn.Module
        A `Trainable`, which is trained in place.
    batches : Batches
    config : TrainConfig
    seed : int
        Seed of the dropout masks; each mask depends only on (seed, epoch, batch).
    device : torch.device
    validate : callable or None
        Returns validation metrics of the current model. None trains all epochs.
    report : callable or None
        Called after each step and after each epoch. If it returns true after a step, training
        stops.
    horizon : int or None
        Number of epochs over which the learning rate falls, by default ``config.epochs``. A refit
        with fewer epochs gets the horizon of the training with validation, so that its learning
        rates are the same.
    deadline : float or None
        Time on the clock of `time.monotonic` before which training should end. No epoch begins that
        would end too late, by the mean of the epochs so far; the first one always begins.
    repeats : int
        Number of trainings without validation that follow for the chosen number of epochs. The
        deadline leaves time for them.
    """

    def __init__(
        self,
        model: Any,
        batches: Batches,
        config: TrainConfig,
        *,
        seed: int,
        device: torch.device,
        validate: Callable[[], Mapping[str, float]] | None = None,
        report: Callable[[Progress], bool | None] | None = None,
        horizon: int | None = None,
        deadline: float | None = None,
        repeats: int = 0,
    ) -> None:
        self.model = model
        self.batches = batches
        self.config = config
        self.seed = seed
        self.device = device
        self.validate = validate
        self.report = report or (lambda _: False)
        self.horizon = horizon or config.epochs
        self.deadline = deadline
        self.repeats = repeats
        self.late = False
        self._epoch_seconds: list[tuple[float, float]] = []  # of training, and of validation
        self.tables = tables_of(model, config)
        by_rows = self.tables.parameters if self.tables else set()
        self.optimizer = _optimizer(model, config, by_rows)
        dense = any(id(parameter) not in by_rows for parameter in model.parameters())
        averages = config.average > 0 and dense
        self.averaged = Averaged(model, config.average, by_rows) if averages else None
        self.owner = Layout(batches.log.n_users, processes.size())
        self.state = TrainState()

    def run(self, epochs: int | None = None) -> TrainState:
        """Train at most `epochs` epochs and leave the best parameters in the model.

        Raises
        ------
        NonFiniteError
            When a loss, or at the end of an epoch a parameter, is NaN or infinite. The message
            names the step and the first tensor that is not finite.
        TrainingInterrupted
            When `report` asks to stop. Training can resume from the state at that point.
        """
        epochs = epochs or self.config.epochs
        state = self.state
        while state.epoch < epochs and not self._stale() and not self._is_late():
            # A background thread makes the next batches during a step.
            made = prefetched(self.parts(state.epoch, state.batch))
            began = time.perf_counter()
            with contextlib.closing(made) as source:
                for part in source:
                    loss = self._step(part)
                    state.loss_sum += loss * part.positives
                    state.positives += part.positives
                    state.batch += 1
                    now = time.perf_counter()
                    state.seconds += now - began
                    began = now
                    if self.report(self._progress(epochs)):
                        raise TrainingInterrupted(
                            f"stopped in epoch {state.epoch + 1} after batch {state.batch} "
                            f"of {len(self.batches)}"
                        )
            began = time.perf_counter()
            validation = self._close_epoch()
            self._epoch_seconds.append((state.seconds, time.perf_counter() - began))
            self.report(replace(self._progress(epochs), validation=validation, finished_epoch=True))
            state.batch, state.loss_sum, state.positives, state.seconds = 0, 0.0, 0, 0.0
        self._put_best()
        return state

    def _put_best(self) -> None:
        """Leave the best parameters in the model; without validation, the average or the last."""
        best = self.state.best
        if self.tables is not None:
            self.tables.settle(self._steps)
            parts = self.tables.validated()
            if best is not None:
                parts = {name: best.pop(name) for name in parts}
            self.tables.put_whole(parts)
        if best is not None:
            self.model.load_state_dict(best, strict=self.tables is None)
        elif self.averaged is not None:
            self.averaged.swap()

    @property
    def _steps(self) -> int:
        """Number of finished steps."""
        return self.state.epoch * len(self.batches) + self.state.batch

    def parts(self, epoch: int, first: int = 0) -> Iterator[Part]:
        """The parts of this process of the batches of an epoch, from batch number `first` on.

        Every process draws the same batches, and keeps the pairs of its own users.
        """
        for whole in self.batches.epoch(epoch, first=first):
            batch, rows = whole, None
            if processes.size() > 1:
                own = self.owner.owners(whole.users) == processes.rank()
                batch = part_of_users(whole, own.numpy())
            if self.tables is not None:
                batch, rows = compacted(batch, self.owner.rows)
            yield Part(batch, whole.positives, terms(whole, self.config), rows)

    def step_seconds(self, most: float) -> float:
        """Mean seconds of a step, from trial steps for at most about `most` seconds.

        The steps change the model, so it must not be trained afterwards. The first step, which
        prepares memory, counts only if it is the only one.
        """
        ends = [time.perf_counter()]
        with contextlib.closing(prefetched(self.parts(0))) as source:
            for part in source:
                self._step(part)
                ends.append(time.perf_counter())
                if ends[-1] - ends[0] > most:
                    break
        counted = ends[1:] if len(ends) > 2 else ends
        return (counted[-1] - counted[0]) / max(len(counted) - 1, 1)

    def _progress(self, epochs: int) -> Progress:
        state = self.state
        return Progress(
            state.epoch, epochs, state.batch, len(self.batches),
            state.loss_sum / max(state.positives, 1), state.positives, state.seconds,
        )  # fmt: skip

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """State for a checkpoint: named tensors, and plain data such as counters.

        Tables that are updated by rows are not among them: `Tables.save` writes them.
        """
        state = self.state
        named = {"model": frozen(self.model), "best": state.best or {}}
        if self.averaged is not None:
            named["average"] = self.averaged.values
        tables = self.tables.roles if self.tables is not None else {}
        tensors = {
            f"{part}.{name}": value
            for part, values in named.items()
            for name, value in values.items()
            if name not in tables
        }
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        return tensors, {name: value for name, value in vars(state).items() if name != "best"}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Check the tensors against `state_arrays` first.

        Raises
        ------
        ValueError
            When a tensor is missing, or the plain data do not fit this training.
        """
        state = {name: plain[name] for name in vars(TrainState()) if name != "best"}
        best = under(tensors, "best.")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in under(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value

        tables = self.tables.roles if self.tables is not None else {}
        names = self.model.state_dict().keys() - tables.keys()
        averages = {} if self.averaged is None else self.averaged.values
        complete = under(tensors, "model.").keys() == names
        complete &= under(tensors, "average.").keys() == averages.keys()
        complete &= not best or best.keys() == names
        # Adam has three tensors per parameter: step, exp_avg, exp_avg_sq.
        complete &= all(len(of_parameter) == 3 for of_parameter in moments.values())
        if not complete:
            raise ValueError("a tensor is missing")
        contradictory = bool(names) and bool(best) != bool(state["best_validation"])
        if contradictory or state["batch"] > len(self.batches):
            raise ValueError("its counters contradict each other")
        if state["best_validation"]:
            self.config.merit(state["best_validation"])  # raises if the selection metric is missing

        self.model.load_state_dict(under(tensors, "model."), strict=not tables)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        for name, value in under(tensors, "average.").items():
            averages[name].copy_(value)
        self.state = TrainState(**state, best=best or None)

    def _close_epoch(self) -> dict[str, float] | None:
        """Validate after an epoch and keep the parameters if they are the best so far.

        With parameter averaging, the average is validated. The result is the validation metrics.

        Raises
        ------
        NonFiniteError
            When a parameter or a moment of the optimizer is NaN or infinite. Some do not show in
            the loss: those of the last step, those whose outputs a ReLU cuts off, and an infinite
            second moment, which stops its parameter from learning.
        """
        named = dict(self.model.named_parameters())
        moments = {
            f"{key} of {name}": value
            for name, parameter in named.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        bad = self._bad_tensor((named | moments).items())
        if self.tables is not None:
            bad = bad or self.tables.non_finite()
        if processes.any_of(bad is not None)[0]:
            where = self.state.epoch, self.state.batch - 1
            raise NonFiniteError(self._not_finite(bad or "a row of another process", *where))
        with self.averaged.in_place() if self.averaged else contextlib.nullcontext():
            if self.tables is not None and self.validate:
                self.tables.settle(self._steps)
                self.tables.put_whole(self.tables.validated())
            validation = dict(self.validate()) if self.validate else None
            self.state.epoch += 1
            self._keep_best(validation)
        if self.tables is not None:
            self.tables.restore()
        return validation

    def _step(self, part: Part) -> float:
        """Update the parameters once, and return the mean loss.

        The mean is per pair, with a softmax per positive, and with BPR per negative.
        """
        where = (self.state.epoch, self.state.batch)
        rng = torch.Generator(self.device)
        rng.manual_seed(self._dropout_seed(*where))
        batch = part.batch.to(self.device)
        if self.tables is not None and part.rows is not None:
            self.tables.load_rows(part.rows)
        with matmul_precision(self.config.matmul_precision):
            loss, logits = self._objective(batch, part, rng)
            value = float(loss.detach())
            if processes.size() == 1 and not math.isfinite(value):
                named = [*self.model.named_parameters(), ("logits", logits)]
                raise NonFiniteError(self._not_finite(self._bad_tensor(named) or "loss", *where))
            self.optimizer.zero_grad(set_to_none=True)
            if loss.requires_grad:  # a process may have no user in a batch
                loss.backward()  # type: ignore[no-untyped-call]
            if verify.verifying():
                self._verify(part, loss, where)
        if processes.size() > 1:
            value = self._add_gradients(loss, where)
        rate = self._set_learning_rate(*where)
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update(where[0] * len(self.batches) + where[1])
        if self.tables is not None:
            self.tables.update(where[0] * len(self.batches) + where[1], rate)
        return value if self.config.reduction == "mean" else value / max(part.terms, 1)

    def _dropout_seed(self, epoch: int, batch: int) -> int:
        """Seed of the dropout masks of a step, which differ from process to process."""
        rank = (processes.rank(),) if processes.size() > 1 else ()
        return torch_seed(self.seed, "dropout", epoch, batch, *rank)

    def _objective(self, batch: Batch, part: Part, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The part of this process of the loss of a step, and the logits of its pairs.

        The parts of all processes add up to the loss of the whole batch.
        """
        if len(batch.users) == 0:
            zero = torch.zeros((), device=self.device)
            return zero, zero
        loss, logits = objective(self.model, batch, self.config, rng)
        if processes.size() > 1 and self.config.reduction == "mean":
            loss = loss * (terms(batch, self.config) / max(part.terms, 1))
        return loss, logits

    def _add_gradients(self, loss: Tensor, where: tuple[int, int]) -> float:
        """Add the loss and the gradients of all processes; return the loss.

        One message carries them all, like a bucket of `DistributedDataParallel`.
        """
        total = loss.detach().clone().view(1)
        grads = []
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if not parameter.requires_grad:
                    continue
                if parameter.grad is None:  # this process has no user in the batch
                    parameter.grad = torch.zeros_like(parameter)
                grads.append(parameter.grad)
        processes.add_up([total, *grads])
        value = float(total)
        if not math.isfinite(value):
            bad = self._bad_tensor(self.model.named_parameters())
            raise NonFiniteError(self._not_finite(bad or "loss", *where))
        return value

    def _verify(self, part: Part, loss: Tensor, where: tuple[int, int]) -> None:
        """Compare the loss and all gradients of a step with those of slow forms."""
        rng = torch.Generator(self.device)
        rng.manual_seed(self._dropout_seed(*where))  # the masks of the step
        named = {n: p for n, p in self.model.named_parameters() if p.grad is not None}
        with verify.slow_forms():
            expected, _ = self._objective(part.batch.to(self.device), part, rng)
            if not expected.requires_grad:
                return
            grads = torch.autograd.grad(expected, list(named.values()))
        exact = self.config.matmul_precision == "highest"
        step = f"epoch {where[0] + 1}, batch {where[1] + 1}"
        tolerance = verify.EXACT if exact else verify.ROUNDED_LOSS
        verify.assert_close(f"{step}: loss", loss, expected, tolerance)
        tolerance = verify.EXACT_GRADIENT if exact else verify.ROUNDED_GRADIENT
        for (name, parameter), grad in zip(named.items(), grads, strict=True):
            assert parameter.grad is not None
            verify.assert_close(f"{step}: gradient of {name}", parameter.grad, grad, tolerance)

    def _set_learning_rate(self, epoch: int, batch: int) -> float:
        steps = len(self.batches)
        rate = learning_rate(self.config, epoch * steps + batch, steps, self.horizon)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @staticmethod
    def _bad_tensor(named: Iterable[tuple[str, Tensor]]) -> str | None:
        """Name of the first tensor that holds NaN or an infinity; None if there is none."""
        return next((name for name, t in named if not bool(torch.isfinite(t).all())), None)

    @staticmethod
    def _not_finite(bad: str, epoch: int, batch: int) -> str:
        return (
            f"epoch {epoch + 1}, batch {batch + 1}: {bad} is not finite; "
            "lower train.learning_rate or model.init_scale"
        )

    def _keep_best(self, validation: dict[str, float] | None) -> None:
        state = self.state
        if validation is None:
            state.best_epoch = state.epoch
            return
        merit = self.config.merit
        if not state.best_validation or merit(validation) > merit(state.best_validation):
            state.best_epoch = state.epoch
            state.best_validation = validation
            best = dict(self.model.state_dict())
            if self.tables is not None:  # of each table, the rows of this process
                best |= self.tables.validated()
            state.best = copy.deepcopy(best)

    def _stale(self) -> bool:
        patience = self.config.patience
        if self.validate is None or patience == 0 or self.state.best is None:
            return False
        return self.state.epoch - self.state.best_epoch >= patience

    def _is_late(self) -> bool:
        """Whether one more epoch, and what follows, would end after the deadline."""
        if self.deadline is None or not self._epoch_seconds:
            return False
        train, validate = (sum(part) / len(part) for part in zip(*self._epoch_seconds, strict=True))
        # The next epoch may be the best, so what follows may take one epoch more.
        following = self.repeats * (self.state.epoch + 1) * train
        self.late = time.monotonic() + train + validate + following > self.deadline
        (self.late,) = processes.any_of(self.late)
        return self.late


class Averaged:
    """Exponential moving average of the parameters of a model in training.

    The decay after step t is (1 + t) / (10 + t), at most `decay`. So the poor parameters of the
    first steps soon lose their weight.

    Parameters
    ----------
    model : nn.Module
    decay : float
        Largest decay per step, in (0, 1).
    excluded : set of int
        Identities of parameters to leave out.
    """

    def __init__(self, model: nn.Module, decay: float, excluded: Collection[int] = ()) -> None:
        self.parameters = {
            k: p for k, p in model.named_parameters() if p.requires_grad and id(p) not in excluded
        }
        self.decay = decay
        self.values = {k: p.detach().clone() for k, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the model's parameters to the average, after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values = list(self.values.values())
        torch._foreach_lerp_(values, [p.data for p in self.parameters.values()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Put the average into the model, and the model's parameters in place of the average."""
        for name, parameter in self.parameters.items():
            parameter.data, self.values[name] = self.values[name], parameter.data

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Use the average as the model's parameters inside the ``with`` block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def learning_rate(config: TrainConfig, step: int, per_epoch: int, horizon: int) -> float:
    """Learning rate of step number `step`, counted from 0, with warm-up and schedule.

    Parameters
    ----------
    config : TrainConfig
    step : int
    per_epoch : int
        Number of steps in an epoch.
    horizon : int
        Number of epochs after which a falling rate is zero.
    """
    done = min(1.0, step / (horizon * per_epoch))
    share = 1.0
    if config.schedule == "cosine":
        share = (1 + math.cos(math.pi * done)) / 2
    if config.warmup > 0:
        share *= min(1.0, (step + 1) / (config.warmup * per_epoch))
    return config.learning_rate * share


def prefetched(source: Iterator[Part], depth: int = 2) -> Generator[Part, None, None]:
    """The parts of batches of `source` in the same order, made in advance by a background thread.

    At most `depth` batches are waiting at a time.
    """
    if verify.slow():
        yield from source
        return
    made: queue.Queue[Any] = queue.Queue(depth)
    closed = threading.Event()
    end = object()

    def put(value: Any) -> bool:
        while not closed.is_set():
            try:
                made.put(value, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for batch in source:
                if not put(batch):
                    return
            put(end)
        except BaseException as error:  # the consumer raises it again
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (batch := made.get()) is not end:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        closed.set()
        thread.join()


def parameter_groups(model: Any) -> list[list[nn.Parameter]]:
    """Two lists of the model's parameters: embedding tables, and all others.

    Weight decay may apply only to the first list.
    """
    tables = {id(p) for p in model.embedding_parameters()}
    parameters = list(model.parameters())
    return [
        [p for p in parameters if id(p) in tables],
        [p for p in parameters if id(p) not in tables],
    ]


def terms(batch: Batch, config: TrainConfig) -> int:
    """Number of terms of a batch's loss: pairs, positives with a softmax, negatives with BPR."""
    return int((batch.labels == 0).sum()) if config.loss == "bpr" else len(batch.labels)


def tables_of(model: Any, config: TrainConfig) -> Tables | None:
    """The embedding tables of a model that are updated by rows; None if none are."""
    if config.table_optimizer == "adam":
        return None
    embeddings = {id(parameter) for parameter in model.embedding_parameters()}
    named = dict(model.named_parameters())
    roles = base.table_roles(type(model), model.config)
    decayed = {n for n in roles if config.decay_on == "all" or id(named[n]) in embeddings}
    return Tables(model, roles, decayed, config.learning_rate, config.weight_decay, config.average)


def _optimizer(
    model: Any, config: TrainConfig, excluded: Collection[int] = ()
) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if id(p) not in excluded]
    if not parameters:  # every parameter is a table; Adam refuses an empty list
        nothing = nn.Parameter(torch.empty(0), requires_grad=False)
        return torch.optim.Adam([nothing], lr=config.learning_rate)
    groups = [[p for p in group if id(p) not in excluded] for group in parameter_groups(model)]
    decays = [config.weight_decay, config.weight_decay if config.decay_on == "all" else 0.0]
    return torch.optim.Adam(
        [{"params": g, "weight_decay": d} for g, d in zip(groups, decays, strict=True) if g],
        lr=config.learning_rate,
        fused=all(p.device.type in ("cpu", "cuda") for p in parameters),
    )


def state_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Expected name, type and shape of each tensor from `Trainer.state_dict`."""
    state = arrays.optional(base.state_arrays(config, n_users, n_items))
    tables: Collection[str] = ()
    if config.train.table_optimizer != "adam" and not base.non_iterative(config.name):
        tables = base.table_roles(base.model_class(config.name), config.model)
        state = {name: array for name, array in state.items() if name not in tables}
    declared: dict[str, Array] = {}
    for part in ("model", "best", "average"):
        declared |= arrays.under(part, state)
    if base.non_iterative(config.name):
        return declared
    model = base.build(config.name, config.model, n_users, n_items, 0)
    by_rows = {id(p) for name, p in model.named_parameters() if name in tables}
    dense = (p for p in itertools.chain(*parameter_groups(model)) if id(p) not in by_rows)
    for index, parameter in enumerate(dense):
        moment = Array(shape=tuple(parameter.shape), optional=True)
        adam = {"step": Array(shape=(), optional=True), "exp_avg": moment, "exp_avg_sq": moment}
        declared |= arrays.under(f"optimizer.{index}", adam)
    return declared


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, with the prefix removed from the names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def frozen(model: Any) -> dict[str, Tensor]:
    """The parameters of a model as named tensors on the CPU, for storage.

    For a model on the CPU, they share the model's memory.
    """
    return {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
