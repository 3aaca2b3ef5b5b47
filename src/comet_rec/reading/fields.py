"""The fields of one line of delimited text, strictly by its quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Padding = Literal["", "left", "both"]


@dataclass(frozen=True)
class Splitter:
    """How the lines of one file are cut into fields.

    Parameters
    ----------
    delimiter : str
        A blank stands for any run of blanks and tabs.
    quote : str
        One character, or "" where quotes are text.
    escape : str
        The character that makes the next one text; "" where a quote is doubled instead.
    padded : {"", "left", "both"}
        On which sides blanks are no part of a field.
    """

    delimiter: str
    quote: str = '"'
    escape: str = ""
    padded: Padding = ""

    def plain(self, line: str) -> list[str]:
        """The fields when every quote is text."""
        if self.delimiter == " ":
            return line.split()
        fields = line.split(self.delimiter)
        if self.padded == "left":
            return [fields[0], *(field.lstrip(" ") for field in fields[1:])]
        return [field.strip(" ") for field in fields] if self.padded else fields

    def needs_care(self, line: str) -> bool:
        """Whether `plain` could be wrong about a line."""
        if self.escape and self.escape in line:
            return True
        return bool(self.quote) and self.quote in line

    def fields(self, line: str) -> list[str] | None:
        """The fields by the quotes; None when a quote is not closed, or closes within a field.

        A quote in the middle of a field that does not begin with one is text.
        """
        found: list[str] = []
        if self.padded == "both":
            line = line.strip(" ")
        at = 0
        while True:
            match = self._field.match(line, at)
            if match is None:
                return None
            quoted, bare = match.groups()
            if quoted is not None:
                found.append(self._unescaped(quoted.replace(self.quote * 2, self.quote)))
            else:
                found.append(self._unescaped(bare))
            at = match.end()
            if at == len(line):
                return found
            at += self._step.match(line, at).end() - at  # type: ignore[union-attr]

    def is_open(self, text: str) -> bool:
        """Whether the text ends within quotes that a later line may close."""
        at = 0
        while match := self._field.match(text, at):
            if match.end() == len(text):
                return False
            at = self._step.match(text, match.end()).end()  # type: ignore[union-attr]
        return self._unclosed.match(text, at) is not None

    def _unescaped(self, field: str) -> str:
        if not self.escape or self.escape not in field:
            return field
        return re.sub(re.escape(self.escape) + r"(.)", r"\1", field, flags=re.DOTALL)

    @cached_property
    def _between(self) -> str:
        """Pattern of what stands between two fields."""
        if self.delimiter == " ":
            return r"[ \t]+"
        before, behind = {"": ("", ""), "left": ("", " *"), "both": (" *", " *")}[self.padded]
        return before + re.escape(self.delimiter) + behind

    @cached_property
    def _inside(self) -> str:
        """Pattern of what stands between two quotes.

        Possessive: there is one way to read it, and to keep others in mind takes memory.
        """
        quote = re.escape(self.quote)
        if not self.escape:
            return f"[^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*+"
        escape = re.escape(self.escape)
        other = f"[^{quote}{escape}]*+"
        return f"{other}(?:(?:{escape}.|{quote}{quote}){other})*+"

    @cached_property
    def _field(self) -> re.Pattern[str]:
        end = f"(?={self._between}|\\Z)"
        escape = re.escape(self.escape)
        if len(self.delimiter) == 1 and self.delimiter != " " and self.padded != "both":
            other = f"[^{re.escape(self.delimiter)}{escape}]*+"
            bare = f"{other}(?:{escape}.{other})*+" if escape else other
        else:
            char = f"(?:(?!{self._between}).)"
            bare = f"(?:{escape}.|{char})*" if escape else f"{char}*"
        if not self.quote:
            return re.compile(f"(?!)()|({bare}){end}", re.DOTALL)
        quote = re.escape(self.quote)
        return re.compile(
            f"{quote}({self._inside}){quote}{end}|((?!{quote}){bare}){end}", re.DOTALL
        )

    @cached_property
    def _step(self) -> re.Pattern[str]:
        return re.compile(self._between)

    @cached_property
    def _unclosed(self) -> re.Pattern[str]:
        quote = re.escape(self.quote) if self.quote else "(?!)"
        return re.compile(f"{quote}{self._inside}\\Z", re.DOTALL)
