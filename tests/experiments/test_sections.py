"""Sections of a report: paired differences over seeds, rows that were run, orders of ties."""

from __future__ import annotations

import json

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.evaluation.metrics import ndcg
from comet_rec.evaluation.paired import SILENT, Noise, holm, over_trainings
from comet_rec.experiments import reliability
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.plans import BEST
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Item
from comet_rec.experiments.sections import compared, differences
from comet_rec.experiments.summary import what_was_run
from comet_rec.experiments.tables import Cell, Section, Table
from tests.conftest import make_log, random_pairs

USERS = 400


class Recorded(Record):
    """A record with ranks that no file holds."""

    def __init__(self, better, full_better=None):
        ranks = {"better": better, "tied": np.zeros_like(better)}
        if full_better is not None:
            ranks |= {"full_better": full_better, "full_tied": np.zeros_like(full_better)}
        gains = ndcg(ranks["better"], ranks["tied"], 10)
        figures = {"HR@10": float((better < 10).mean()), "NDCG@10": float(gains.mean())}
        errors = dict.fromkeys(figures, float(gains.std() / np.sqrt(len(gains))))
        whole, n_full = None, 0
        if full_better is not None:
            n_full = len(full_better)
            whole = {"NDCG@10": float(ndcg(full_better, 0 * full_better, 10).mean())}
        values = {
            "sampled": figures, "sampled_se": errors, "full": whole, "full_se": whole,
            "n_users": len(better), "n_users_full": n_full, "epochs": 1, "train_seconds": 1.0,
        }  # fmt: skip
        super().__init__(values, str(id(self)))
        self.__dict__["ranks"] = ranks


class Queue:
    """A runner that has finished."""

    def __init__(self, every=(), **of):
        self.of = of
        self.items = [Item(job) for job in every or jobs(*of)]

    def seeds_of(self, job):
        return self.of.get(job.label, [])

    def why_none(self, jobs):
        return ""

    def record(self, job):
        return self.of.get(job.label, ["not requested"])[0]


def jobs(*labels):
    return [Job("small", label, "mf", "paper") for label in labels]


def small():
    pairs = random_pairs(np.random.default_rng(0), 9, 20, 4)
    split = cr.leave_one_out(make_log(pairs, n_items=20), negatives=5)
    return StudyLog("small", "small", split)


def table(*labels, stepwise=False, **of):
    return differences(small(), jobs(*labels), Queue(**of), stepwise=stepwise)


def drawn(seed, most=40):
    return np.random.default_rng(seed).integers(0, most, USERS)


def test_p_values_are_corrected_for_their_number():
    of = {name: [Recorded(drawn(s)), Recorded(drawn(s + 9))] for s, name in enumerate("ABCD")}
    of["D"] = [Recorded(np.minimum(r.ranks["better"], 3)) for r in of["A"]]
    _, data = table(*"ABCD", **of)
    found = {name: data[name]["differences"]["NDCG@10"] for name in "BCD"}

    def values(name):
        return np.array([record.user_values("NDCG@10") for record in of[name]])

    ps = [over_trainings(values(name), values("A")).p for name in "BCD"]
    assert [found[name]["holm"] for name in "BCD"] == pytest.approx(holm(ps))
    assert min(ps) < min(found[name]["holm"] for name in "BCD")


def test_a_difference_is_that_of_the_means_over_seeds():
    first, ours = [Recorded(drawn(0)), Recorded(drawn(1))], [Recorded(drawn(2)), Recorded(drawn(3))]
    shown, data = table("A", "B", A=first, B=ours)
    found = data["B"]["differences"]["NDCG@10"]
    means = [np.mean([r.user_values("NDCG@10").mean() for r in of]) for of in (ours, first)]
    assert found["difference"] == pytest.approx(means[0] - means[1])
    assert shown.rows[1][1] == "2"
    assert data["A"]["differences"]["NDCG@10"] is None


def test_noise_between_trainings_is_in_the_interval():
    """The same model but for its luck: with one seed it seems to differ, with three it does not."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 12, 4_000)

    def lucky(shift):
        return Recorded(np.where(rng.random(4_000) < 0.5, np.maximum(base - shift, 0), base))

    few, many = [lucky(4)], [lucky(4), lucky(0), lucky(0)]
    reference = [lucky(0), lucky(3), lucky(0)]
    _, one = table("A", "B", A=[Recorded(base)], B=few)
    assert one["B"]["differences"]["NDCG@10"]["p"] is None
    assert one["B"]["differences"]["NDCG@10"]["low"] > 0  # over users alone
    _, three = table("A", "B", A=reference, B=many)
    found = three["B"]["differences"]["NDCG@10"]
    assert found["p"] > 0.05
    assert found["low"] < 0 < found["high"]
    assert found["freedom"] < 10
    _, mixed = table("A", "B", A=[Recorded(base)], B=many)  # the one seed is given the other's
    assert mixed["B"]["differences"]["NDCG@10"]["p"] > 0.05


def test_full_ranks_are_tested_over_the_same_users_alone():
    whole = Recorded(drawn(0), drawn(1, 200))
    other = Recorded(drawn(2), drawn(3, 20))
    some = Recorded(drawn(4), drawn(5, 200)[:50])
    none = Recorded(drawn(6))
    shown, data = table("A", "B", "C", "D", A=[whole], B=[other], C=[some], D=[none])
    assert data["B"]["differences"]["full NDCG@10"]["difference"] > 0
    assert data["C"]["differences"]["full NDCG@10"] is None
    full = shown.columns.index("full NDCG@10")
    assert shown.texts[2][full].endswith("(50 users)")
    assert shown.texts[3][full] == ""
    assert data["D"]["differences"]["NDCG@10"] is not None


def test_steps_are_held_against_the_row_above():
    shown, data = table(
        "A", "B", "C", stepwise=True,
        A=[Recorded(drawn(0, 20))], B=[Recorded(drawn(1, 40))], C=[Recorded(drawn(1, 40))],
    )  # fmt: skip
    assert "NDCG@10 − the row above" in shown.columns
    assert data["B"]["differences"]["NDCG@10"]["difference"] < 0
    assert data["C"]["differences"]["NDCG@10"]["difference"] == 0
    assert data["C"]["differences"]["NDCG@10"]["low"] == 0
    json.dumps(data, allow_nan=False)


def test_what_was_not_run_says_so():
    shown, data = table("A", "B", A=[Recorded(drawn(0))])
    assert [row[0] for row in shown.rows] == ["A"]
    assert set(data) == {"A"}
    runner = Queue(A=[Recorded(drawn(0))])
    section = compared("figure4", [(small(), jobs("A", "B", "C"))], runner)
    assert section.text[-1] == "small, not run: B, C (not requested)."


def test_a_model_that_draws_nothing_has_a_p_and_no_seeds():
    """Its noise is zero; a trained one is lent the noise of the noisiest that has several."""
    closed = [Job("small", "A", "ease", "paper"), Job("small", "B", "itemknn", "paper")]
    trained = jobs("C", "D")
    of = {
        "A": [Recorded(drawn(0))] * 3, "B": [Recorded(drawn(1))], "C": [Recorded(drawn(2))],
        "D": [Recorded(drawn(seed)) for seed in (3, 4, 5)],
    }  # fmt: skip

    every = [*closed, *trained]
    shown, data = differences(small(), every, Queue(every, **of))
    assert [row[1] for row in shown.rows] == ["–", "–", "1", "3"]
    assert [row[2] for row in shown.rows] == ["–", "–", "1 of 60", "1, 1, 1 of 60"]
    values = {k: np.array([r.user_values("NDCG@10") for r in v]) for k, v in of.items()}
    plain = over_trainings(values["B"], values["A"][:1], (SILENT, SILENT))
    assert data["B"]["differences"]["NDCG@10"]["p"] == pytest.approx(plain.p)
    noise = Noise.largest([values["D"]])
    lent = over_trainings(values["C"], values["A"][:1], (noise, SILENT))
    assert data["C"]["differences"]["NDCG@10"]["error"] == pytest.approx(lent.error)
    assert lent.error > over_trainings(values["C"], values["A"][:1]).error


def test_rows_are_counted_for_their_own_log():
    log, other = (StudyLog(name, name, None) for name in ("log", "log-2"))
    not_run = Cell(None, paper=0.2, status="not run")
    tables = [
        Table("log", ["model", "x"], [["A", ".1"], ["B", ".2"]], log="log"),
        Table("log-2", ["model", "x"], [["A", not_run]], log="log-2"),
        Table("log, differences", ["model", "x"], [["A", ".1"]]),
    ]
    section = Section("part", "Part", tables=tables, missing={"log": 3})
    rows = what_was_run([section], [log, other]).tables[0].rows
    assert rows == [["Part", "2 of 5 rows", "0 of 1 rows; 1 not run"]]


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
            return "not among the requested models"
        figures = {"NDCG@10": FIGURES[job.label, job.log]}
        values = {"sampled": figures, "sampled_se": {"NDCG@10": 0.01}, "n_users": 100}
        return OfUsers(values, job.label)


class OfUsers(Record):
    """A record whose users have the figure, or .1 more and less in turn for `BEST`."""

    def user_values(self, metric: str, *, full: bool = False) -> np.ndarray:
        around = 0.1 if self.key == BEST else 0.0
        return self.values["sampled"][metric] + np.resize([around, -around], 100)


def section_of_ties(runner):
    labels = ("EASE", "BCE-MF", BEST)
    orders = {order: [Job(order, label, "m", "p") for label in labels] for order in ORDERS}
    return reliability.ties([(StudyLog("log", "Log", None, ""), 0.5, orders)], runner)


ORDERS = ("file", "random", "item")


def test_the_gain_is_over_the_best_of_the_others_in_the_same_order():
    found = section_of_ties(Finished())
    gains = found.data["log"]["gains"]
    assert gains == pytest.approx({"file": 0.20, "random": 0.10, "item": -0.02})
    error = 0.1 / 99**0.5
    assert found.data["log"]["gains_se"] == pytest.approx(dict.fromkeys(ORDERS, error))
    shown = ["+0.200 ± 0.010", "+0.100 ± 0.010", "-0.020 ± 0.010"]
    assert found.tables[0].rows[-1] == [f"gain of {BEST}", *shown]
    assert "+0.200 ± 0.010 under file order" in found.text[-1]
    assert "+0.100 ± 0.010 under random order (-0.100 ± 0.014)" in found.text[-1]


@pytest.mark.parametrize("orders", [("item",), ORDERS])
def test_nothing_is_said_of_a_gain_while_a_figure_is_missing(orders):
    found = section_of_ties(Finished(*(("BCE-MF", order) for order in orders)))
    assert "gains" not in found.data["log"]
    assert [row[0] for row in found.tables[0].rows] == ["EASE", "BCE-MF", BEST]
