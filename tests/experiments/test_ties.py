"""Gain of a model under several orders of equal times."""

from __future__ import annotations

import numpy as np
import pytest

from comet_rec.experiments import reliability
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.plans import BEST
from comet_rec.experiments.records import Record

FIGURES = {
    ("EASE", "file"): 0.40, ("EASE", "random"): 0.41, ("EASE", "item"): 0.42,
    ("BCE-MF", "file"): 0.42, ("BCE-MF", "random"): 0.40, ("BCE-MF", "item"): 0.41,
    (BEST, "file"): 0.62, (BEST, "random"): 0.51, (BEST, "item"): 0.40,
}  # fmt: skip


class Finished:
    """Stands for a runner whose jobs are done, but for those it is told of."""

    def __init__(self, *missing: tuple[str, str]):
        self.missing = missing

    def record(self, job: Job) -> Record | str:
        if (job.label, job.log) in self.missing:
            return "not among those asked for"
        figures = {"NDCG@10": FIGURES[job.label, job.log]}
        values = {"sampled": figures, "sampled_se": {"NDCG@10": 0.01}, "n_users": 100}
        return OfUsers(values, job.label)


class OfUsers(Record):
    """A record whose users have the figure, or .1 more and less in turn for `BEST`."""

    def user_values(self, metric: str, *, full: bool = False) -> np.ndarray:
        around = 0.1 if self.key == BEST else 0.0
        return self.values["sampled"][metric] + np.resize([around, -around], 100)


def section(runner):
    labels = ("EASE", "BCE-MF", BEST)
    orders = {order: [Job(order, label, "m", "p") for label in labels] for order in ORDERS}
    return reliability.ties([(StudyLog("log", "Log", None, ""), 0.5, orders)], runner)


ORDERS = ("file", "random", "item")


def test_the_gain_is_over_the_best_of_the_others_in_the_same_order():
    found = section(Finished())
    gains = found.data["log"]["gains"]
    assert gains == pytest.approx({"file": 0.20, "random": 0.10, "item": -0.02})
    error = 0.1 / 99**0.5
    assert found.data["log"]["gains_se"] == pytest.approx(dict.fromkeys(ORDERS, error))
    shown = ["+0.200 ± 0.010", "+0.100 ± 0.010", "-0.020 ± 0.010"]
    assert found.tables[0].rows[-1] == [f"gain of {BEST}", *shown]
    assert "+0.200 ± 0.010 NDCG@10 under file order" in found.text[-1]
    assert "+0.100 ± 0.010 under random order (-0.100 ± 0.014)" in found.text[-1]


@pytest.mark.parametrize("orders", [("item",), ORDERS])
def test_nothing_is_said_of_a_gain_while_a_figure_is_missing(orders):
    found = section(Finished(*(("BCE-MF", order) for order in orders)))
    assert "gains" not in found.data["log"]
    assert [row[0] for row in found.tables[0].rows] == ["EASE", "BCE-MF", BEST]
