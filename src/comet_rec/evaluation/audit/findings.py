"""Findings of an audit, and their forms as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from comet_rec.text import printable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Example = dict[str, Any]
"""One affected case: external ids and other values that JSON can hold, by name."""


@dataclass(frozen=True)
class Hit:
    """Result of a check that found a fault: a finding without the name and severity of the check.

    Parameters
    ----------
    count, of : int
        Number of affected cases, and number of cases that were checked.
    message : str
        One line: the fault and the number of affected cases.
    example : dict or None
        One affected case.
    """

    count: int
    of: int
    message: str
    example: Example | None = None


@dataclass(frozen=True)
class Finding:
    """One fault that an audit found.

    Parameters
    ----------
    check : str
        Name of the check, e.g. "test-in-training".
    severity : {"error", "warning", "note"}
        error: metrics are wrong. warning: metrics mean less than they seem to. note: good to know.
    count, of : int
        Number of affected cases, and number of cases that were checked.
    message : str
        One line: the fault and the number of affected cases.
    example : dict or None
        One affected case by external ids, in values that JSON can hold.
    """

    check: str
    severity: Severity
    count: int
    of: int
    message: str
    example: Example | None = None

    @property
    def with_example(self) -> str:
        """The message, followed by the example if there is one."""
        if not self.example:
            return self.message
        example = ", ".join(f"{key} {value}" for key, value in self.example.items())
        return f"{self.message}; e.g. {example}"

    def __str__(self) -> str:
        return printable(f"{self.severity:8} {self.check}: {self.with_example}")


def passed(findings: Iterable[Finding]) -> bool:
    """Whether none of the findings is an error."""
    return all(finding.severity != "error" for finding in findings)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity, errors first; findings of one severity keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def as_data(findings: Iterable[Finding]) -> dict[str, Any]:
    """Findings as the plain data that ``audit --json`` prints."""
    rows = list(findings)
    return {"findings": [asdict(finding) for finding in rows], "ok": passed(rows)}


def as_text(findings: Iterable[Finding]) -> str:
    """Text with a line for each finding, and a last line that counts findings by severity."""
    rows = list(findings)
    return "\n".join([*map(str, rows), counted(rows)])


def counted(findings: Iterable[Finding]) -> str:
    """Number of findings of each severity, such as "0 errors, 1 warning, 0 notes"."""
    rows = list(findings)
    numbers = []
    for severity in SEVERITIES:
        n = sum(finding.severity == severity for finding in rows)
        numbers.append(f"{n} {severity}{'' if n == 1 else 's'}")
    return ", ".join(numbers)
