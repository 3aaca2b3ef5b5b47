"""The live table of a study: what is done, running, waiting, and the time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from comet_rec.cli.progress import clock
from comet_rec.cli.terminal import say
from comet_rec.text import printable

if TYPE_CHECKING:
    from comet_rec.experiments.runner import Board, Item

ROWS = 24
"""Rows of the table at most: those around the one that runs."""


class Silent:
    """Shows nothing."""

    def show(self, items: Sequence[Item], left: float) -> None:
        """Nothing."""


class Lines:
    """A line on stderr whenever a training ends."""

    def __init__(self) -> None:
        self.told: set[int] = set()

    def show(self, items: Sequence[Item], left: float) -> None:
        """Tell what ended since the last time."""
        for item in items:
            if id(item) in self.told or item.state in ("waiting", "running"):
                continue
            self.told.add(id(item))
            ended = sum(each.state not in ("waiting", "running") for each in items)
            job = item.job
            say(
                f"{ended}/{len(items)} {job.log} {job.label} seed {job.seed}: {item.state} "
                f"{item.note} {item.seconds:,.0f} s, about {clock(left)} left"
            )


class Live:
    """A table on a terminal, drawn a few times a second."""

    def __init__(self, screen: Any) -> None:
        self.screen = screen
        self.drawn = 0.0

    def show(self, items: Sequence[Item], left: float) -> None:
        """Draw the table anew."""
        if time.monotonic() - self.drawn < 0.25 and left > 0:
            return
        self.drawn = time.monotonic()
        self.screen.update(_table(items, left))


def _table(items: Sequence[Item], left: float) -> Any:
    from rich.table import Table
    from rich.text import Text

    counts = {state: sum(item.state == state for item in items) for state in STYLES}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    table = Table(title=f"{said}; about {clock(left)} left", title_justify="left", box=None)
    for name in ("log", "model", "seed", "state", "seconds", ""):
        side: Any = "right" if name == "seconds" else "left"
        table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis")
    now = next((p for p, item in enumerate(items) if item.state in ("running", "waiting")), 0)
    first = max(0, min(now - ROWS // 2, len(items) - ROWS))
    for item in items[first : first + ROWS]:
        job, seconds = item.job, f"{item.seconds:,.0f}" if item.seconds else ""
        row = (job.log, job.label, str(job.seed), item.state, seconds, item.note)
        # As Text: what stands in square brackets would be a style.
        table.add_row(*(Text(printable(cell)) for cell in row), style=STYLES[item.state])
    return table


STYLES = {
    "done": "green", "running": "bold", "waiting": "dim", "failed": "red", "left out": "yellow",
}  # fmt: skip


@contextlib.contextmanager
def board(quiet: bool) -> Iterator[Board]:
    """Choose the display: a live table on a terminal, lines elsewhere, nothing if quiet."""
    if quiet:
        yield Silent()
    elif sys.stderr is None or not sys.stderr.isatty():
        yield Lines()
    else:
        from rich.console import Console
        from rich.live import Live as Screen

        with Screen(console=Console(stderr=True), auto_refresh=True) as screen:
            yield Live(screen)
