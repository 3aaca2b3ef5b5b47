"""Schemathesis asks everything that the OpenAPI description allows, and much that it forbids."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.serving.test_hostile import SECRET, Attacked

SEED = "20"
# Excluded is `positive_data_acceptance`, because JSON Schema does not express three rules whose
# breach is answered with 422: lists × k are bounded, /v1/explain takes a user or a history, and
# "compare" needs a second run. Ids of 2^63 and more are bounded as floats there.
CHECKS = ("--checks", "all", "--exclude-checks", "positive_data_acceptance")


def schemathesis(port, *options):
    """Run its command: as a plugin of pytest it would slow every other test file down."""
    words = [
        sys.executable, "-c", "import schemathesis.cli as c; c.schemathesis()", "run",
        f"http://127.0.0.1:{port}/openapi.json", *CHECKS, "--seed", SEED,
        "--generation-database", "none", "--no-color", *options,
    ]  # fmt: skip
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture(params=["open", "keys", "text ids"])
def asked(request, runs, tmp_path):
    """A service and the options with which Schemathesis asks it."""
    run, options, headers = runs["comet"], ["--compare", runs["ease"]], []
    if request.param == "keys":
        keys = tmp_path / "keys"
        keys.write_text(SECRET)
        options = ["--keys", keys]
        headers = ["-H", f"Authorization: Bearer {SECRET}"]
    if request.param == "text ids":
        run, options = runs["text"], ["--compare", runs["mf"]]
    with Attacked(tmp_path, run, *options) as service:
        yield service.port, headers
        lines = service.end()
    assert all(line["event"] != "server" or "type" not in line for line in lines)
    assert SECRET not in service.log.read_text()


def check(asked, *options):
    port, headers = asked
    done = schemathesis(port, *headers, *options)
    assert done.returncode == 0, f"seed {SEED}\n{done.stdout}\n{done.stderr}"
    assert "10 selected / 10 total" in done.stdout


def test_answers_keep_to_the_description(asked):
    check(asked, "--max-examples", "5", "--phases", "examples,fuzzing")


@pytest.mark.slow
def test_answers_keep_to_the_description_for_long(asked):
    check(asked, "--max-examples", "300")
