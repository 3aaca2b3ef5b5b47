"""Embedding tables of which a step reads and changes only the rows of its batch.

Adam updates every row of a table in every step, also rows without a gradient. Once tables have a
few hundred thousand rows, this takes longer than all other work of a step. Here a step copies the
rows of its batch out of the tables, and the model computes with the copies. The sparse form of Adam
(`torch.optim.SparseAdam`) then updates these rows alone. A row that occurs in no batch stays.

Each of P processes holds a P-th part of every table, and the rows of a batch are exchanged::

    process 0                              process 1
    rows of its users' batch               rows of its users' batch
        │  indices of rows ── all-to-all ──►  │   to the owners of the rows
        ◄─ values ─────────── all-to-all ──►  │   from the owners
    loss, gradients of the copies          loss, gradients of the copies
        │  gradients ──────── all-to-all ──►  │   to the owners, who add and apply them

A hash of its index decides the owner of a row, since neighbouring ids are often alike in
popularity. The hash is one-to-one and does not depend on P. So a table is stored in the order of
the hashes, and process p owns the p-th part. Another engine for large tables, such as TorchRec's,
would take the place of the class `Tables`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from comet_rec import memory, processes
from comet_rec.artefact.parts import load_parts, save_parts
from comet_rec.data.batch_parts import Role
from comet_rec.errors import ConfigError

GOLDEN = (math.sqrt(5) - 1) / 2


class Layout:
    """Places of a table's rows in the order of their hashes, and the processes that own them.

    The hash of row r of n is r · a mod n, with a coprime to n and near n times the golden ratio. It
    spreads neighbouring rows evenly over the processes.

    Parameters
    ----------
    rows : int
        n, at most 2³¹.
    count : int
        P, the number of processes. Process p owns the places p · s … (p + 1) · s − 1, with
        s = ⌈n / P⌉. This is the layout of `torch.chunk`, and so of a DTensor.
    """

    def __init__(self, rows: int, count: int) -> None:
        self.rows = rows
        self.factor = max(1, round(rows * GOLDEN))
        while math.gcd(self.factor, max(rows, 1)) != 1:
            self.factor += 1
        self.part = max(1, -(-rows // count))

    def places(self, rows: Tensor) -> Tensor:
        """Place of each row, int64; places are a permutation of 0 … n − 1."""
        return rows * self.factor % max(self.rows, 1)

    def owners(self, rows: Tensor) -> Tensor:
        """Process that owns each row, int64."""
        return self.places(rows) // self.part

    def own(self, process: int) -> Tensor:
        """Rows that a process owns, in the order of their places, int64."""
        first = min(process * self.part, self.rows)
        places = torch.arange(first, min(first + self.part, self.rows))
        inverse = pow(self.factor, -1, self.rows) if self.rows > 1 else 0
        return places * inverse % max(self.rows, 1)


class Table:
    """One embedding table in training: the rows that this process owns, and their optimizer.

    Parameters
    ----------
    parameter : nn.Parameter [n, …]
        The model's table. During a step it holds the batch's rows; afterwards, with one process,
        the whole table.
    learning_rate, weight_decay : float
        As for `torch.optim.Adam`. The decay adds to the gradients of the batch's rows alone.
    average : float
        Largest decay of the moving average of the parameters (`trainer.Averaged`); 0 for none.
    """

    def __init__(
        self, parameter: nn.Parameter, learning_rate: float, weight_decay: float, average: float
    ) -> None:
        self.parameter = parameter
        self.shape = parameter.shape
        self.layout = Layout(len(parameter), processes.size())
        values = parameter.data
        if processes.size() > 1:
            values = values[self.layout.own(processes.rank())]
        self.values = nn.Parameter(values)
        self.weight_decay = weight_decay
        self.optimizer = torch.optim.SparseAdam([self.values], lr=learning_rate)
        self.averaged = LazyAverage(values, average) if average > 0 else None

    def take(self, rows: Tensor) -> Tensor:
        """Values of rows of this process, by their places in its part, [R, …]."""
        return self.values.data.index_select(0, rows)

    def update(self, rows: Tensor, grads: Tensor, step: int, learning_rate: float) -> None:
        """One step of Adam on distinct rows of this process, given in ascending order.

        Parameters
        ----------
        rows : int64 [R]
            Places in the part of this process.
        grads : Tensor [R, …]
        step : int
            Number of the step, from 0.
        """
        if self.weight_decay > 0:
            grads = grads + self.weight_decay * self.take(rows)
        before = self.take(rows) if self.averaged is not None else grads
        self.values.grad = torch.sparse_coo_tensor(
            rows[None], grads, self.values.shape, is_coalesced=True, check_invariants=False
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()  # type: ignore[no-untyped-call]
        self.values.grad = None
        if self.averaged is not None:
            self.averaged.update(rows, before, self.take(rows), step)

    def moments(self) -> dict[str, Tensor]:
        """First and second moments of Adam, shaped like the rows of this process."""
        state = self.optimizer.state[self.values]
        if not state:
            state["step"] = 0
            for name in MOMENTS:
                state[name] = torch.zeros_like(self.values.data)
        return {name: state[name] for name in MOMENTS}

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint holds of the rows of this process, except the number of steps."""
        state = {"values": self.values.data, **self.moments()}
        if self.averaged is not None:
            state |= {"average": self.averaged.values, "average_since": self.averaged.since}
        return state


MOMENTS = ("exp_avg", "exp_avg_sq")


class LazyAverage:
    """Exponential moving average of a table's rows, computed when a row changes.

    Between two changes of a row at steps s and t its value p stays the same, so the average moves
    towards p by the product of the decays of the steps between: a ← p + (a − p) · d(s+1) … d(t−1).
    The result is that of `trainer.Averaged` up to rounding.
    """

    def __init__(self, values: Tensor, decay: float) -> None:
        self.decay = decay
        self.values = values.clone()
        # Number of steps that the average of each row includes, and Σ log d of the first t steps.
        self.since = values.new_zeros(len(values), dtype=torch.int32)
        self._log_decays = values.new_zeros(1, dtype=torch.float64)

    def update(self, rows: Tensor, before: Tensor, after: Tensor, step: int) -> None:
        """Include all steps up to step number `step`, which changed the rows.

        Parameters
        ----------
        rows : int64 [R]
        before, after : Tensor [R, …]
            Values of the rows before and after the step.
        step : int
        """
        missed = self._decay(self.since[rows], step, before)
        decay = self._decay(self.since.new_tensor([step]), step + 1, before)
        average = self.values.index_select(0, rows)
        average.sub_(before).mul_(missed).add_(before)  # the steps in which the rows stayed
        average.sub_(after).mul_(decay).add_(after)
        self.values.index_copy_(0, rows, average)
        self.since[rows] = step + 1

    def settle(self, values: Tensor, steps: int) -> None:
        """Include all of the first `steps` steps in the averages of all rows."""
        missed = self._decay(self.since, steps, values)
        self.values.sub_(values).mul_(missed).add_(values)
        self.since.fill_(steps)

    def _decay(self, since: Tensor, steps: int, like: Tensor) -> Tensor:
        """Product of the decays of the steps from `since` to `steps` − 1, for rows like `like`."""
        if steps >= len(self._log_decays):
            t = torch.arange(2 * steps + 1000, dtype=torch.float64, device=since.device)
            decays = ((1 + t) / (10 + t)).clamp(max=self.decay)
            self._log_decays = torch.cat([t.new_zeros(1), decays.log().cumsum(0)])
        product = (self._log_decays[steps] - self._log_decays[since.long()]).exp()
        return product.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


class Exchange:
    """The rows of a batch that each process asked the others for, and the way back.

    Parameters
    ----------
    layout : Layout
    rows : int64 [R]
        Distinct rows that this process needs, ascending.
    """

    def __init__(self, layout: Layout, rows: Tensor) -> None:
        places = layout.places(rows)
        if processes.size() == 1:  # the table is in the order of its rows
            self.asked = rows
            return
        owners = places // layout.part
        # Indices for the same owner must stand together, in the order of the owners.
        self.order = torch.argsort(owners, stable=True)
        sent = torch.bincount(owners, minlength=processes.size())
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        self.sizes = sent.tolist(), received.tolist()
        wanted = (places - owners * layout.part)[self.order]
        asked = wanted.new_empty(int(received.sum()))
        dist.all_to_all_single(asked, wanted, self.sizes[1], self.sizes[0])
        # Several processes may ask for the same row.
        self.asked, self.number = torch.unique(asked, return_inverse=True)

    def fetch(self, values: Tensor) -> Tensor:
        """Values of the R rows; `values` [S, …] are those that this process was asked for."""
        if processes.size() == 1:
            return values
        out = values.new_empty((len(self.order), *values.shape[1:]))
        answer = values[self.number].contiguous()
        dist.all_to_all_single(out, answer, self.sizes[0], self.sizes[1])
        back = torch.empty_like(out)
        back[self.order] = out  # back to the order in which the batch numbers the rows
        return back

    def give_back(self, grads: Tensor) -> Tensor:
        """Gradients of the S rows that this process was asked for, summed over the processes."""
        if processes.size() == 1:
            return grads
        out = grads.new_empty((len(self.number), *grads.shape[1:]))
        dist.all_to_all_single(out, grads[self.order].contiguous(), self.sizes[1], self.sizes[0])
        sums = grads.new_zeros((len(self.asked), *grads.shape[1:]))
        return sums.index_add_(0, self.number, out)


class Tables:
    """All embedding tables of a model, of which each process owns a part.

    Parameters
    ----------
    model : nn.Module
    roles : mapping of str to {"user", "item"}
        Names of the tables, and what their rows stand for (`models.base.table_roles`).
    decayed : set of str
        Names of the tables that weight decay applies to.
    learning_rate, weight_decay, average : float
        As for `Table`.
    """

    def __init__(
        self, model: nn.Module, roles: Mapping[str, Role], decayed: set[str],
        learning_rate: float, weight_decay: float, average: float,
    ) -> None:  # fmt: skip
        parameters = dict(model.named_parameters())
        if any(parameters[name].device.type != "cpu" for name in roles) and processes.size() > 1:
            raise ConfigError(
                'train.table_optimizer = "sparse_adam": several processes divide tables on a CPU '
                'only; on GPUs set it to "adam"'
            )
        self.roles = roles
        self.tables = {
            name: Table(
                parameters[name], learning_rate, weight_decay if name in decayed else 0.0, average
            )
            for name in roles
        }
        self._exchanges: dict[Role, Exchange] = {}
        self.restore()  # frees the rows of other processes

    @property
    def parameters(self) -> set[int]:
        """Identities of the model's parameters that are tables here."""
        return {id(table.parameter) for table in self.tables.values()}

    def load_rows(self, rows: Mapping[Role, Tensor]) -> None:
        """Put the given rows of every table into the model, in this order."""
        for role in sorted(set(self.roles.values())):
            names = [name for name in self.roles if self.roles[name] == role]
            first = self.tables[names[0]]
            exchange = Exchange(first.layout, rows[role].to(first.values.device))
            self._exchanges[role] = exchange
            # Tables of the same role are exchanged together, as columns of one matrix.
            columns = [self.tables[name].take(exchange.asked) for name in names]
            matrix = torch.cat([_matrix(column) for column in columns], dim=1)
            widths = [math.prod(self.tables[name].shape[1:]) for name in names]
            parts = torch.split(exchange.fetch(matrix), widths, dim=1)
            for name, values in zip(names, parts, strict=True):
                parameter = self.tables[name].parameter
                parameter.grad = None
                parameter.data = values.reshape(-1, *self.tables[name].shape[1:]).contiguous()

    def update(self, step: int, learning_rate: float) -> None:
        """One step of the optimizer, from the gradients of the rows that `load_rows` put in.

        With one process the model holds the whole tables again afterwards. With several ones it
        keeps the rows until the next step.
        """
        for role, exchange in self._exchanges.items():
            tables = [table for name, table in self.tables.items() if self.roles[name] == role]
            grads = [
                torch.zeros_like(table.parameter)
                if table.parameter.grad is None
                else table.parameter.grad
                for table in tables
            ]
            matrix = torch.cat([_matrix(grad) for grad in grads], dim=1)
            sums = exchange.give_back(matrix)
            widths = [math.prod(table.shape[1:]) for table in tables]
            for table, part in zip(tables, torch.split(sums, widths, dim=1), strict=True):
                shaped = part.reshape(-1, *table.shape[1:])
                table.update(exchange.asked, shaped, step, learning_rate)
                table.parameter.grad = None
        self._exchanges = {}
        if processes.size() == 1:
            self.restore()

    def restore(self) -> None:
        """Leave the model as it is between two steps.

        With one process it holds the whole tables, otherwise empty ones.
        """
        for table in self.tables.values():
            alone = processes.size() == 1
            table.parameter.data = table.values.data if alone else table.values.data[:0]

    def settle(self, steps: int) -> None:
        """Bring the moving averages of all rows up to date, after `steps` steps."""
        for table in self.tables.values():
            if table.averaged is not None:
                table.averaged.settle(table.values.data, steps)

    def validated(self) -> dict[str, Tensor]:
        """The rows that validation measures, by table: averages, or without them values.

        Each process has the rows that it owns. The averages must be settled.
        """
        return {
            name: table.values.data if table.averaged is None else table.averaged.values
            for name, table in self.tables.items()
        }

    def put_whole(self, parts: Mapping[str, Tensor]) -> None:
        """Put whole tables into the model, of which each process gives its own rows.

        With several processes the tables are in a temporary file on each machine, which all its
        processes map into their memory.
        """
        for name, table in self.tables.items():
            alone = processes.size() == 1
            table.parameter.data = parts[name] if alone else _mapped(table, parts[name])

    def non_finite(self) -> str | None:
        """Name of the first table, or moment of it, that holds NaN or an infinity."""
        for name, table in self.tables.items():
            for key, value in {"values": table.values.data, **table.moments()}.items():
                if not bool(torch.isfinite(value).all()):
                    return name if key == "values" else f"{key} of {name}"
        return None

    @property
    def steps(self) -> int:
        """Number of steps that the optimizer has made."""
        return max(int(t.optimizer.state[t.values].get("step", 0)) for t in self.tables.values())

    def save(self, folder: Path, best: Mapping[str, Tensor] | None) -> None:
        """Write the tables and the state of their optimizer; all processes must call this.

        `best` has the best rows of each table so far, those of this process; None without them.
        """
        parts = {
            name: part[self._order(name)] if processes.size() == 1 else part
            for name, part in self._parts(best).items()
        }
        save_parts(folder, parts, self._rows(parts))

    def load(
        self, folder: Path, files: Mapping[str, str], steps: int, *, best: bool
    ) -> dict[str, Tensor] | None:
        """Restore what `save` wrote, also from another number of processes; returns `best`.

        Raises
        ------
        ValueError
            When the files are damaged or do not fit.
        """
        best_rows = None
        if best:
            best_rows = {n: torch.empty_like(t.values.data) for n, t in self.tables.items()}
        parts = self._parts(best_rows)
        if processes.size() > 1:
            load_parts(folder, parts, self._rows(parts), files)
        else:
            stored = {name: torch.empty_like(part) for name, part in parts.items()}
            load_parts(folder, stored, self._rows(parts), files)
            for name, part in parts.items():
                part[self._order(name)] = stored[name]
        for table in self.tables.values():
            table.optimizer.state[table.values]["step"] = steps
        self.restore()
        return best_rows

    def _parts(self, best: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Tensors of a checkpoint, "TABLE/KEY": the rows of this process."""
        parts: dict[str, Tensor] = {}
        for name, table in self.tables.items():
            parts |= {f"{name}/{key}": value for key, value in table.state().items()}
            if best is not None:
                parts[f"{name}/best"] = best[name]
        return parts

    def _order(self, part: str) -> Tensor:
        """Rows of a part's table in the order of their places, as checkpoints store them."""
        return self.tables[part.rpartition("/")[0]].layout.own(0)

    def _rows(self, parts: Mapping[str, Tensor]) -> dict[str, int]:
        return {part: self.tables[part.rpartition("/")[0]].shape[0] for part in parts}


def _matrix(values: Tensor) -> Tensor:
    """The rows of a table as a matrix, [R, W]; a table of biases has one column."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _mapped(table: Table, own: Tensor) -> Tensor:
    """The whole of a table whose parts are in several processes, mapped from a file; [n, …].

    Each process shows its part to the others, block by block. The first process of each machine
    writes the blocks to the file. Changes of the result stay in this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        found: list[Any] = [None] * processes.size()
        dist.all_gather_object(found, (processes.local_rank(), folder))
        # The processes of a machine have consecutive ranks, and use the folder of the first one.
        leader = max(r for r in range(processes.rank() + 1) if found[r][0] == 0)
        path = Path(found[leader][1]) / "table"
        shape = tuple(table.shape)
        dtype = own.numpy().dtype
        out = np.memmap(path, dtype, "w+", shape=shape) if folder == found[leader][1] else None
        if out is not None:
            with path.open("r+b") as file:
                memory.reserve(file.fileno(), out.nbytes)
        size = max(1, processes.BLOCK_BYTES // (dtype.itemsize * max(1, math.prod(shape[1:]))))
        for process in range(processes.size()):
            rows = table.layout.own(process)
            for first in range(0, len(rows), size):
                block = rows[first : first + size]
                values = own.new_empty((len(block), *shape[1:]))
                if process == processes.rank():
                    values.copy_(own[first : first + len(block)])
                dist.broadcast(values, process)
                if out is not None:
                    out[block.numpy()] = values.numpy()
        if out is not None:
            out.flush()
        processes.wait()
        mapped = torch.from_numpy(np.memmap(path, dtype, "c", shape=shape))
        processes.wait()  # the file is removed once every process has mapped it
    return mapped
