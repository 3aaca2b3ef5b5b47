"""Notes and doubts that come up while a log is read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

from comet_rec.errors import CometWarning


@dataclass
class Remarks:
    """Notes in the order in which they came up.

    Parameters
    ----------
    notes : list of str
        All of them, doubts included.
    doubts : list of str
        Those after which the log may not mean what its owner thinks.
    """

    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something was done."""
        self.notes.append(text)

    def doubt(self, texts: Iterable[str]) -> None:
        """Something may be wrong."""
        for text in texts:
            self.notes.append(text)
            self.doubts.append(text)

    def warn(self, stacklevel: int) -> None:
        """Show the doubts as warnings."""
        for text in self.doubts:
            warnings.warn(text, CometWarning, stacklevel=stacklevel + 1)
