"""Parts of a report: sections with text, tables and drawings. A table cell holds a metric."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, variance
from typing import Any

from comet_rec.experiments.logs import StudyLog
from comet_rec.text import markdown

METRICS = ("HR@10", "NDCG@10")
"""Metrics in drawings, tables of differences and tables of full metrics."""
NOT_RUN = "not run"
OTHER_LOG = "another log"
"""Status of a cell if our log is not the paper's."""
SMALLER = "a smaller model"
"""Status of a cell if the K (embedding size) of our COMET is below the paper's."""
STATUSES = ("reproduced", "better", "lower", OTHER_LOG, SMALLER, NOT_RUN)
"""All statuses of a cell that has a figure of the paper, in the order of the summary."""


@dataclass(frozen=True)
class Cell:
    """A table cell with one of our metrics, and the paper's figure if there is one.

    Parameters
    ----------
    value : float or None
        Mean over training seeds; None if the model was not run.
    error : float
        One standard error, over users and, with several seeds, over seeds.
    seeds : tuple of float
        Metric of each seed.
    paper : float, optional
        The paper's figure.
    status : str
        One of `STATUSES`; empty if the paper prints no figure.
    note : str
        Reason why the model was not run, or the number of users if only a sample was ranked.
    digits : int
        Number of decimals: three for sampled metrics, four for full metrics.
    """

    value: float | None
    error: float = 0.0
    seeds: tuple[float, ...] = ()
    paper: float | None = None
    status: str = ""
    note: str = ""
    digits: int = 3

    @property
    def difference(self) -> float | None:
        """Our metric minus the paper's figure; None if they cannot be compared."""
        if self.value is None or self.paper is None or self.status in (OTHER_LOG, SMALLER):
            return None
        return self.value - self.paper

    def __str__(self) -> str:
        if self.value is None:
            why = f"{NOT_RUN}: {self.note}" if self.note else NOT_RUN
            return why if self.paper is None else f"paper {number(self.paper)}; {why}"
        text = f"{self._decimals(self.value)} ± {self._decimals(self.error)}{self.note}"
        if self.paper is None:
            return text
        difference = "" if self.difference is None else f", {self.difference:+.3f}"
        return f"{text}; paper {number(self.paper)}{difference}: {self.status}"

    def _decimals(self, value: float) -> str:
        return number(value) if self.digits == 3 else f"{value:.{self.digits}f}"

    def as_data(self) -> dict[str, Any]:
        """Data of the cell in ``report.json``."""
        compared = self.difference is not None
        return {
            "ours": self.value, "error": self.error, "seeds": self.seeds,
            "paper": self.paper if compared else None,
            "verdict": self.status if compared else "", "difference": self.difference,
        }  # fmt: skip


@dataclass
class Table:
    """Rows of cells and text under named columns.

    Parameters
    ----------
    title : str
    columns : list of str
    rows : list of list of (Cell or str)
    log : str
        Title of the log that the rows' models were trained on; empty for other tables.
    """

    title: str
    columns: list[str]
    rows: list[list[Cell | str]]
    log: str = ""

    @property
    def texts(self) -> list[list[str]]:
        """All cells as text."""
        return [[str(cell) for cell in row] for row in self.rows]

    @property
    def statuses(self) -> Counter[str]:
        """Number of cells for each status, among cells that have a figure of the paper."""
        cells = (cell for row in self.rows for cell in row if isinstance(cell, Cell))
        return Counter(cell.status for cell in cells if cell.status and cell.paper is not None)


@dataclass
class Drawing:
    """A figure of a report, with panels for each log.

    Parameters
    ----------
    name : str
        Name of its files without the ending.
    kind : str
        Name in `plots.KINDS`.
    caption : str
    panels : dict of str to dict
        Title of each log, or of each journal of a search → data that `plots` draws.
    options : dict
        Axis labels and scales, for the kinds "lines" and "positions".
    """

    name: str
    kind: str
    caption: str
    panels: dict[str, dict[str, Any]]
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Section:
    """A part of a report: text, tables and figures.

    Parameters
    ----------
    name : str
    title : str
    text : list of str
        Paragraphs.
    tables, drawings : list
    data : dict
        Data of the section for ``report.json``.
    missing : dict of str to int
        Title of a log → number of its models that were not run.
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)

    def statuses_of(self, log: str | None = None) -> Counter[str]:
        """Number of cells for each status, among cells that have a figure of the paper.

        `log` is the title of a log to count; None counts all logs.
        """
        total: Counter[str] = Counter()
        for table in self.tables:
            if log is None or table.log == log:
                total += table.statuses
        return total

    def add(self, table: Table) -> None:
        """Add a table, unless it has no rows."""
        if table.rows:
            self.tables.append(table)

    def draw(self, kind: str, caption: str, panels: dict[str, Any], **options: str) -> None:
        """Add a drawing, unless it has no panels; the parameters are as in `Drawing`."""
        if panels:
            self.drawings.append(Drawing(self.name, kind, caption, panels, options))

    def leave_out(self, log: StudyLog, reasons: Mapping[str, str]) -> None:
        """Add a sentence that names the models missing in a log's table, with the reasons.

        A log that could not be read gets no sentence here, since the summary has one.

        Parameters
        ----------
        log : StudyLog
        reasons : mapping
            Label of a missing model → reason.
        """
        if not reasons or log.split is None:
            return
        labels: dict[str, list[str]] = {}
        for label, reason in reasons.items():
            labels.setdefault(reason, []).append(label)
        listed = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in labels.items())
        self.missing[log.title] = self.missing.get(log.title, 0) + len(reasons)
        self.text.append(f"{log.title}, not run: {listed}.")


def number(value: float) -> str:
    """Text of a number with three decimals and no zero before the point, as in the paper."""
    return f"{value:.3f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.3f}"


def interval_text(difference: float, low: float, high: float) -> str:
    """Text of a difference and its 95 % interval."""
    return f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]"


def p_text(p: float, *, none_seen: bool = False) -> str:
    """Text of a p-value.

    If `none_seen` is True, no bootstrap mean had the other sign, so the p-value is only a bound.
    """
    if p < 0.001:
        return "< 0.001"
    return f"< {math.ceil(p * 1000) / 1000:.3f}" if none_seen else f"{p:.3f}"


def compared_cell(
    values: Sequence[float],
    errors: Sequence[float],
    users: int,
    paper: float | None = None,
    unlike: str = "",
) -> Cell:
    """Cell with the mean of a metric over seeds, and its comparison with the paper's figure.

    The status is "reproduced" if |ours − paper's| ≤ 1.96·√(SE² + SE_paper²). The paper reports no
    error, so SE_paper is √(p(1 − p)/T), the standard error of a mean of T binomial draws. For NDCG
    this is an upper bound.

    Parameters
    ----------
    values, errors : sequence of float
        Metric of each seed, and its standard error over users.
    users : int
        T, the number of test users.
    paper : float, optional
    unlike : str
        Status of a cell that cannot be compared with the paper; empty if it can.
    """
    over_seeds = variance(values) / len(values) if len(values) > 1 else 0.0
    ours, error = mean(values), math.sqrt(mean(e * e for e in errors) + over_seeds)
    if paper is None:
        return Cell(ours, error, tuple(values))
    reach = 1.96 * math.sqrt(error**2 + paper * (1 - paper) / users)
    status = "reproduced"
    if abs(ours - paper) > reach:
        status = "better" if ours > paper else "lower"
    return Cell(ours, error, tuple(values), paper, unlike or status)


def markdown_table(table: Table) -> str:
    """Table in Markdown, below its title."""
    rows = [table.columns, ["---"] * len(table.columns), *table.texts]
    lines = ["| " + " | ".join(map(markdown, row)) + " |" for row in rows]
    return "\n".join([f"**{markdown(table.title)}**\n", *lines] if table.title else lines)
