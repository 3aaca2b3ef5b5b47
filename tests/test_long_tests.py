"""The list of long tests names tests that exist."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import LONG_TESTS


def test_listed_tests_exist():
    lines = [line for line in LONG_TESTS.read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines))
    for line in lines:
        path, _, name = line.partition("::")
        function = name.partition("[")[0]
        assert f"def {function}(" in Path(__file__).parents[1].joinpath(path).read_text(), line
