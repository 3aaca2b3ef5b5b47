"""The battery on a registered model, as a program: a test process with threads must not be forked.

python -m tests.testing.battery_of mf
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter

import comet_rec as cr
from comet_rec.errors import CometWarning
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.models import base
from comet_rec.testing import check_recommender
from tests.models.test_contract import SMALL

CHANCE = "it knows nothing of its users"
OWN_PARAMETERS = "a user of the log has parameters of its own beside its history"
DECLARED = {
    "random": {"it_learns_the_planted_kinds": CHANCE},
    "popularity": {"it_learns_the_planted_kinds": CHANCE, "a_history_gets_its_own_kind": CHANCE},
    "comet": {"a_known_history_gets_the_list_of_its_user": OWN_PARAMETERS},
    "fism": {"a_known_history_gets_the_list_of_its_user": OWN_PARAMETERS},
    "svdpp": {"a_known_history_gets_the_list_of_its_user": OWN_PARAMETERS},
}


def subject(name: str) -> cr.COMET:
    """Model that learns the planted kinds in a second; "default" is COMET's preset `auto`."""
    if name == "default":
        return cr.COMET(embedding_dim=16, epochs=8, full_epochs=8)
    if base.non_iterative(name):
        return ESTIMATORS[name]()
    epochs, rate = {"mlp": (40, 1e-2), "sasrec": (20, 5e-3)}.get(name, (8, 3e-2))
    return ESTIMATORS[name](
        **SMALL.get(name, {}), preset="static", epochs=epochs, full_epochs=epochs, batch_size=64,
        learning_rate=rate,
    )  # fmt: skip


if __name__ == "__main__":
    # The planted logs are odd on purpose: ids with blanks, times in 1970, no times.
    warnings.simplefilter("ignore", CometWarning)
    model = sys.argv[1]
    table = check_recommender(subject(model), expected_failed=DECLARED.get(model))
    print(json.dumps(Counter(table["outcome"].tolist())))
