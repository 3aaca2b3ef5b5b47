"""The audit: each planted fault is found, nothing else is, and clean data give silence."""

from __future__ import annotations

import ast
import re
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.data.given_split import Pairs
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import TRAIN
from comet_rec.errors import DataError
from comet_rec.estimators import audit as run_audit
from comet_rec.evaluation.audit import CHECKS, Finding, as_data, as_text, audit, audit_files
from comet_rec.evaluation.audit.times import _latest_of_others
from comet_rec.reading.readers import read
from tests.evaluation.planted import (
    COLD,
    FOLLOWS,
    N_USERS,
    PLANTED,
    ROWS,
    clean,
    clean_log,
    config,
    item_of_test_in_training,
    with_times,
)  # fmt: skip

FINDINGS = Path(__file__).with_name("findings.txt")
PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


def test_clean_data_give_silence():
    split = clean()
    assert audit(split, config()) == []
    assert audit(split.interactions) == []


@pytest.mark.parametrize(("plant", "check", "severity", "count", "of"), PLANTED)
def test_a_planted_fault_is_found_and_only_it(plant, check, severity, count, of):
    found = {finding.check: finding for finding in audit(plant(clean()), config())}
    assert set(found) - FOLLOWS.get(plant.__name__, set()) == {check}
    finding = found[check]
    assert (finding.severity, finding.count, finding.of) == (severity, count, of)


def lines_of_planted_faults() -> str:
    """What the audit says of each planted fault, with its example."""
    lines = []
    for plant, *_ in PLANTED:
        lines += [f"# {plant.__name__}", *map(str, audit(plant(clean()), config()))]
    return "\n".join(lines) + "\n"


def test_findings_say_what_they_said():
    """`python -m tests.evaluation.test_audit` writes the file anew; look at what it changes."""
    assert FINDINGS.read_text(encoding="utf-8") == lines_of_planted_faults()


@pytest.mark.parametrize("plant", [p[0] for p in PLANTED[:9]])
def test_examples_are_external_ids(plant):
    split = plant(clean())
    example = audit(split)[0].example
    assert example is not None
    assert example["user"] == 1003
    if plant is item_of_test_in_training:
        assert example["item"] == 5000 + split.test.positives[3]


@pytest.mark.parametrize("policy", ["sampled", "recent", "causal"])
def test_the_target_in_the_history_is_found_by_drawing_batches(policy):
    """Where the setting hides it, nothing; where it does not, most are seen (N exceeds the rows).

    A causal history of a user ends before the target, so the user in N(i) is what is seen.
    """
    split = clean()
    assert audit(split, config(history=policy)) == []
    (finding,) = audit(split, config(history=policy, exclude_target=False))
    assert (finding.check, finding.severity) == ("target-in-history", "error")
    assert finding.count == finding.of == int((split.part == TRAIN).sum())
    assert finding.example is not None
    user, item = finding.example["user"] - 1000, finding.example["item"] - 5000
    rows = split.train
    assert ((rows.users == user) & (rows.items == item)).any()


@pytest.mark.parametrize("name", ["FISM", "SVDpp"])
def test_models_of_whole_bags_are_judged_by_their_setting(name):
    estimator = getattr(cr, name)
    log = clean_log()
    assert audit(clean(), estimator().config_for(log)) == []
    (finding,) = audit(clean(), estimator(exclude_target=False).config_for(log))
    assert finding.check == "target-in-history"
    assert audit(clean(), cr.MF().config_for(log)) == []  # nothing is shown, nothing to find


def test_ties_in_the_order_of_ids_are_a_pattern():
    log = clean_log()
    assert log.times is not None
    sessions = np.repeat(np.arange(N_USERS * ROWS // 6), 6)  # six rows at one time
    items = np.sort(log.items.reshape(-1, 6), axis=1).ravel()
    tied = replace(log, items=items, times=10**9 + 1 + sessions * 977)
    (finding,) = [f for f in audit(tied) if f.check == "order-follows-ids"]
    assert (finding.count, finding.of) == (400, 400)
    assert "between equal times" in finding.message
    untied = replace(tied, items=log.items)
    assert [f.check for f in audit(untied)] == ["tied-steps"]


def test_a_log_without_times_may_be_in_the_order_of_ids_and_a_matrix_has_no_order(tmp_path):
    log = clean_log()
    split = cr.leave_one_out(read(log.matrix), negatives=20)
    assert {f.check for f in audit(split)} - COLD == {"no-times"}
    assert not any("order of item ids" in note for note in split.notes)
    pairs = sorted(zip(log.users.tolist(), log.items.tolist(), strict=True))
    rows = "\n".join(f"{user},{item}" for user, item in pairs)
    (tmp_path / "log.csv").write_text(f"user,item\n{rows}\n")
    split = cr.leave_one_out(read(tmp_path / "log.csv"), negatives=20)
    assert {f.check for f in audit(split)} - COLD == {"order-follows-ids", "no-times"}
    assert any("order of item ids" in note for note in split.notes)


def test_rows_of_one_time_in_the_order_of_ids_are_told_by_the_split_too():
    log = clean_log()
    order = np.lexsort((log.items, log.users))
    tied = replace(log, items=log.items[order], times=np.zeros(len(log), dtype=np.int64))
    for each, told in ((tied, True), (replace(tied, items=log.items), False)):
        notes = cr.leave_one_out(each, negatives=20).notes
        assert any("rows are in the order of item ids" in note for note in notes) == told


def test_rows_against_the_order_of_ids_follow_it_too():
    log = clean_log()
    order = np.lexsort((-log.items.astype(np.int64), log.users))
    found = [
        f for f in audit(replace(log, items=log.items[order])) if f.check == "order-follows-ids"
    ]
    assert [f.count for f in found] == [found[0].of]


def test_the_latest_time_of_somebody_else_is_not_ones_own():
    users = np.array([0, 0, 1], dtype=np.int32)
    tested = np.array([0, 1], dtype=np.int32)
    assert _latest_of_others(users, np.array([5, 9, 7]), tested).tolist() == [7, 9]


def test_an_empty_test_file_is_no_clean_split():
    log = clean_log()
    nothing = Pairs(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    with pytest.raises(DataError, match="the test file has no row"):
        audit_files(log, nothing)


def test_times_of_days_are_coarse_and_not_truncated():
    """86,400 is a multiple of 128, so whole days survive 32-bit floats."""
    log = clean_log()
    days = replace(log, times=(17_000 + np.tile(np.arange(ROWS), N_USERS) * 13) * 86_400)
    assert audit(replace(days, times=days.times + log.users * 86_400)) == []


def test_the_share_of_later_rows_and_users():
    """User 0 lives wholly after the others: 10 rows of 400 are later than the median test."""
    split = clean()
    users = split.interactions.users
    late = with_times(split, lambda times: times + (users == 0) * 10**8)
    found = {f.check: f for f in audit(late)}
    assert (found["future-rows"].count, found["future-rows"].of) == (10, 400)
    assert (found["future-users"].count, found["future-users"].of) == (39, 40)
    assert found["future-rows"].severity == "note"


def test_positions_within_users_say_nothing_of_the_future():
    log = replace(clean_log(), times=np.tile(np.arange(ROWS), N_USERS), time_scope="per_user")
    assert [f.check for f in audit(cr.leave_one_out(log, negatives=20))] == ["times-per-user"]


def test_reading_says_what_the_audit_counts(tmp_path):
    """The count of removed rows comes from a note of the reader."""
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"1,{i},{100 + i}\n" for i in (1, 2, 3, 2, 1)))
    found = {f.check: f for f in audit(read(path))}
    assert (found["repeated-rows"].count, found["repeated-rows"].of) == (2, 5)


def test_files_are_seen_before_they_are_fixed():
    """Positive, training row, repeat, other user, foreign item, cold user, all in one go."""
    log = read_rows([(u, i, 10 * u + i) for u in (1, 2, 3) for i in (u, u + 1, u + 2)])
    test = Pairs(np.array([1, 2, 2, 9]), np.array([5, 2, 1, 4]))
    candidates = Pairs(
        np.array([1, 1, 1, 2, 2, 9, 9, 9, 3]), np.array([5, 4, 4, 3, 77, 1, 2, 3, 1])
    )
    found = {f.check: f for f in audit_files(log, test, candidates)}
    counts = {check: (f.severity, f.count, f.of) for check, f in found.items()}
    assert counts == {
        "test-users-repeated": ("error", 1, 3),
        "test-in-training": ("error", 1, 3),
        "test-positive-among-candidates": ("error", 1, 3),
        "test-candidates-touched": ("error", 1, 3),
        "test-candidates-repeated": ("error", 1, 3),
        "candidates-without-test": ("warning", 1, 9),
        "test-candidates-outside": ("warning", 1, 6),
        "test-few-candidates": ("warning", 1, 3),
        "test-users-cold": ("warning", 1, 3),
    }
    assert found["test-positive-among-candidates"].example == {"user": 1, "item": 5}
    assert found["candidates-without-test"].example == {"user": 3}


def test_times_of_a_test_file_are_looked_at_where_they_are_known():
    log = read_rows([(u, i, 1000 + 100 * u + i) for u in (1, 2) for i in (1, 2, 3)])
    test = Pairs(np.array([1, 2]), np.array([4, 4]))
    assert [f.check for f in audit_files(log, test)] == ["test-items-cold"]
    checks = {f.check for f in audit_files(log, test, times={(1, 4): 1103, (2, 4): 1999})}
    assert {"test-ties", "tied-steps", "future-users"} <= checks
    assert [f.check for f in audit_files(log, test, times={(1, 4): 1103})] == ["test-items-cold"]


def test_a_rating_of_zero_is_found_beside_new_ids_of_the_files():
    """New ids move the indices of the log's own; the pairs that were rated 0 move with them."""
    log = read_rows([(u, i, 10 * u + i) for u in (5, 6) for i in (50, 60, 70)])
    log = replace(log, zero_users=np.array([0, 1]), zero_items=np.array([1, 1]))
    test = Pairs(np.array([1, 5, 6]), np.array([40, 60, 80]))
    (finding,) = [f for f in audit_files(log, test) if f.check == "test-rated-zero"]
    assert (finding.count, finding.of, finding.example) == (1, 3, {"user": 5, "item": 60})


def test_ids_of_another_kind_are_refused():
    log = read_rows([(1, 1, 1), (1, 2, 2)])
    with pytest.raises(DataError, match="'x' is no integer, but the ids of the log are"):
        audit_files(log, Pairs(np.array([1]), np.array(["x"], dtype=object)))


def test_uuids_become_text():
    values = sorted(str(uuid.UUID(int=n)) for n in range(N_USERS))
    ids = np.empty(N_USERS, dtype=object)
    ids[:] = values
    split = item_of_test_in_training(clean())
    split = replace(split, interactions=replace(split.interactions, user_ids=Ids("uuid", ids)))
    example = audit(split)[0].example
    assert example is not None
    assert example["user"] == values[3]


def test_text_and_data():
    error = Finding("a", "error", 1, 2, "one of two", {"user": 7, "item": "x"})
    note = Finding("b", "note", 2, 2, "both")
    assert as_text([error, note]) == (
        "error    a: one of two; e.g. user 7, item x\nnote     b: both\n1 error, 0 warnings, 1 note"
    )
    assert as_data([note]) == {
        "findings": [{"check": "b", "severity": "note", "count": 2, "of": 2, "message": "both",
                      "example": None}],
        "ok": True,
    }  # fmt: skip
    assert as_data([error, note])["ok"] is False


def test_every_finding_of_a_run_is_a_row_of_the_table_of_checks():
    names = {(check.name, check.scope) for check in CHECKS}
    source = Path(run_audit.__file__).read_text()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = {
        node.args[0].value
        for node in calls
        if isinstance(node.func, ast.Name)
        and node.func.id == "Finding"
        and isinstance(node.args[0], ast.Constant)
    }
    assert {"metrics-differ", "tied-scores", "protocol-hash"} <= made
    assert made <= {name for name, scope in names if scope == "run"}


def test_the_table_has_a_function_for_every_check_of_logs_and_splits():
    for check in CHECKS:
        assert (check.function is None) == (check.scope in ("files", "run")), check.name
        assert ("{part}" in check.name) == (check.scope == "held-out"), check.name


def test_the_docs_say_of_every_check_what_it_looks_at():
    table = PAGE.read_text(encoding="utf-8").split("## Checks")[1]
    rows = re.findall(r"^\| `(.+?)` \| (\w+) \| (.+) \|$", table, re.MULTILINE)
    named = [(check.name.format(part="test"), check.severity) for check in CHECKS]
    assert [(name, severity) for name, severity, _ in rows] == named
    assert all(looks_at for _, _, looks_at in rows)


def test_checks_of_held_out_items_name_their_part():
    split = clean()
    cold = replace(split, validation=replace(split.validation, users=split.validation.users))
    no_candidates = np.full_like(cold.validation.candidates, split.interactions.n_items)
    cold = replace(cold, validation=replace(cold.validation, candidates=no_candidates))
    assert [f.check for f in audit(cold)] == ["validation-without-candidates"]


def read_rows(rows: list[tuple[int, int, int]]) -> Interactions:
    import pandas as pd

    return read(pd.DataFrame(rows, columns=["user", "item", "time"]))


if __name__ == "__main__":
    FINDINGS.write_text(lines_of_planted_faults(), encoding="utf-8")
