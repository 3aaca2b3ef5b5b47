"""A record's key leaves out settings at their defaults, so a default must not change unseen."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from comet_rec.config import BlendConfig, ProtocolConfig, TrainConfig
from comet_rec.models import base

DEFAULTS = Path(__file__).parent / "defaults.json"


def now() -> dict[str, dict[str, object]]:
    found = {f"model of {name}": asdict(base.config_class(name)()) for name in base.names()}
    found |= {
        "train": asdict(TrainConfig()),
        "blend": asdict(BlendConfig()),
        "protocol": asdict(ProtocolConfig()),
    }
    return json.loads(json.dumps(found))


def test_no_default_changed():
    """A new setting is added to the file; a changed default would take old records for its own.

    Then put the old value into the presets, or make the records under results/ anew. Write the
    file with ``python -m tests.experiments.test_defaults``.
    """
    assert now() == json.loads(DEFAULTS.read_text())


if __name__ == "__main__":
    DEFAULTS.write_text(json.dumps(now(), indent=1, sort_keys=True) + "\n")
