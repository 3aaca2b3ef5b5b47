"""Findings of an audit, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from comet_rec.text import printable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Example = dict[str, Any]
"""One affected case by external ids, ready for JSON."""


@dataclass(frozen=True)
class Hit:
    """Count and example of a check that found something; the check adds its name and severity.

    Parameters
    ----------
    count, of : int
        How many are affected, out of how many that were looked at.
    message : str
        One line: what, how many of what.
    example : dict or None
    """

    count: int
    of: int
    message: str
    example: Example | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Parameters
    ----------
    check : str
        Name of the check, e.g. "test-in-training".
    severity : {"error", "warning", "note"}
        A figure measured like this is wrong; it means less than it seems to; worth knowing.
    count, of : int
        How many are affected, out of how many that were looked at.
    message : str
        One line: what, how many of what.
    example : dict or None
        One affected case by external ids, ready for JSON.
    """

    check: str
    severity: Severity
    count: int
    of: int
    message: str
    example: Example | None = None

    def __str__(self) -> str:
        text = f"{self.severity:8} {self.check}: {self.message}"
        if self.example:
            text += "; e.g. " + ", ".join(f"{key} {value}" for key, value in self.example.items())
        return printable(text)


def passed(findings: Iterable[Finding]) -> bool:
    """Whether there is no error among the findings."""
    return all(finding.severity != "error" for finding in findings)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; otherwise as they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def as_data(findings: Iterable[Finding]) -> dict[str, Any]:
    """Plain data, as ``audit --json`` prints it."""
    rows = list(findings)
    return {"findings": [asdict(finding) for finding in rows], "ok": passed(rows)}


def as_text(findings: Iterable[Finding]) -> str:
    """A line a finding, and a last line with their number."""
    rows = list(findings)
    numbers = []
    for severity in SEVERITIES:
        n = sum(finding.severity == severity for finding in rows)
        numbers.append(f"{n} {severity}{'' if n == 1 else 's'}")
    return "\n".join([*map(str, rows), ", ".join(numbers)])
