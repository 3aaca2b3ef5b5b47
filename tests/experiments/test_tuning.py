"""Searches: recorded, resumable, and blind to the test items."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.cli.app import run
from comet_rec.errors import ConfigError, InputError, TrainingInterrupted
from comet_rec.estimators import presets
from comet_rec.experiments.summary import searches
from comet_rec.experiments.tuning import (
    SPACES,
    history,
    open_study,
    searched_on,
    settled,
    tune,
)
from comet_rec.training.trainer import Progress

FAST = {"train.epochs": 3, "train.patience": 0, "model.embedding_dim": 8}


def trials_of(journal, model):
    return next(search.trials for search in history(journal) if search.model == model)


@pytest.fixture
def split(checkerboard):
    return cr.leave_one_out(checkerboard, negatives=30)


def test_a_search_is_recorded_and_gone_on_from(split, tmp_path):
    journal = tmp_path / "search.journal"
    first = tune(split, "mf", journal=journal, seconds=0.3, settings=FAST)
    assert first["trials"] >= 1
    assert first["seconds"] >= 0.3
    assert set(first["settings"]) == {"train.learning_rate", "train.weight_decay"}
    again = tune(split, "mf", journal=journal, seconds=0.3, settings=FAST)
    assert again == first  # nothing is left to spend
    longer = first["seconds"] + 0.2  # a trial more, however slow the machine
    more = tune(split, "mf", journal=journal, seconds=longer, settings=FAST)
    assert more["trials"] > first["trials"]
    assert more["validation"]["NDCG@10"] >= first["validation"]["NDCG@10"]


def test_the_test_items_are_not_looked_at(split, tmp_path):
    """Another test item and other candidates: the same search."""
    search = {"model.neighbours": [5, 20], "model.shrink": [0.0, 10.0]}
    test = replace(split.test, positives=np.roll(split.test.positives, 1))
    other = replace(split, test=test)
    object.__setattr__(other, "hash", split.hash)
    found = [
        tune(s, "itemknn", journal=tmp_path / f"{i}.journal", seconds=60, search=search)
        for i, s in enumerate((split, other))
    ]
    assert found[0]["validation"] == found[1]["validation"]


def test_a_search_selects_by_the_whole_catalogue_where_it_is_asked_to(split, tmp_path, monkeypatch):
    """And its settings are not taken for those of one among drawn items."""
    search, journals = {"model.l2": [5.0, 500.0]}, {}
    for by in ("sampled", "full"):
        journals[by], settings = tmp_path / f"{by}.journal", {"train.selection_metric": by}
        found = tune(
            split, "ease", journal=journals[by], seconds=60, search=search, settings=settings,
            preset_name="paper",
        )  # fmt: skip
        trials = trials_of(journals[by], "ease")
        name = "NDCG@10" if by == "sampled" else "full NDCG@10"
        assert found["validation"][name] == max(trial.value for trial in trials)
    both = list(journals.values())
    for by in ("sampled", "full"):
        settings = searched_on(both, split, "paper", by)["ease"]
        assert settings["train.selection_metric"] == by
    assert searched_on([journals["full"]], split, "paper") == {}
    monkeypatch.setattr(presets, "MANY", 1)
    own = tmp_path / "own.journal"  # the preset's choice, named by nobody
    tune(split, "ease", journal=own, seconds=60, search=search, preset_name="best")
    assert [found.selection_metric for found in history(own)] == ["full"]
    (table,) = searches([journals["full"]], {}).tables
    assert table.rows[0][5].endswith(" (full)")
    with pytest.raises(
        ConfigError, match=r"train\.selection_metric: is the metric that a search maximises"
    ):
        tune(
            split, "ease", journal=tmp_path / "new", seconds=1,
            search={"train.selection_metric": ["sampled", "full"]},
        )  # fmt: skip


@pytest.mark.parametrize("model", sorted(SPACES))
@pytest.mark.parametrize("preset_name", ["best", "paper"])
def test_a_search_begins_with_the_presets_own_settings(split, model, preset_name):
    fixed, space = settled(split, model, preset_name, {}, None, 0)
    assert space.keys() == SPACES[model].keys()
    for key, values in space.items():
        assert fixed.get(key) in values
        assert set(SPACES[model][key]) <= set(values)


def test_comet_with_a_blend_is_searched_too(split, tmp_path):
    """From the preset's own settings on."""
    settings = FAST | {
        "blend.model": "fism",
        "blend.embedding_dim": 4,
        "model.hidden": (8,),
        "model.history_length": 6,
    }
    found = tune(
        split, "comet", journal=tmp_path / "j", seconds=0.01, preset_name="best", settings=settings
    )
    own = presets.preset("best", "comet", split.interactions).train
    assert found["settings"]["train.learning_rate"] == own.learning_rate
    assert found["trials"] == 1
    assert found["validation"]["NDCG@10"] > 0


def test_only_the_models_own_epochs_count(split, tmp_path, monkeypatch):
    """The second model's figures, however good, are none of the search's."""
    from comet_rec.experiments import tuning

    def validate(config, split, device, hooks, trained):
        for stage, figure in (("fism validation", 0.9), ("validation", 0.2), ("validation", 0.1)):
            epoch = 1 if figure != 0.1 else 2
            progress = Progress(
                epoch, 3, 1, 1, 0.5, validation={"NDCG@10": figure}, finished_epoch=True
            )
            hooks.report(stage, progress)
        raise TrainingInterrupted("behind")

    monkeypatch.setattr(tuning, "validate", validate)
    journal = tmp_path / "search.journal"
    tune(split, "mf", journal=journal, seconds=0.01, settings=FAST)
    assert {trial.value for trial in trials_of(journal, "mf")} == {0.2}


def test_a_journal_of_another_split_is_refused(split, tmp_path, random_log):
    journal = tmp_path / "search.journal"
    tune(split, "itemknn", journal=journal, seconds=0.01)
    other = cr.leave_one_out(random_log(30, 60, 8), negatives=20)
    with pytest.raises(ConfigError, match="another log or split"):
        tune(other, "itemknn", journal=journal, seconds=0.01)


def test_a_journal_of_other_settings_or_rows_is_refused(split, tmp_path):
    """Its trials would be reported as this search's."""
    journal = tmp_path / "search.journal"
    tune(split, "mf", journal=journal, seconds=0.01, settings=FAST)
    for more in ({"settings": FAST | {"train.epochs": 2}}, {"settings": FAST, "seed": 1}):
        with pytest.raises(ConfigError, match="its search was begun with other settings"):
            tune(split, "mf", journal=journal, seconds=1, **more)
    log = split.interactions
    fewer = log.select(np.arange(len(log)) != 0)  # a training row; who is tested stays the same
    other = cr.leave_one_out(fewer, negatives=30)
    object.__setattr__(other, "hash", split.hash)
    with pytest.raises(ConfigError, match="another log or split"):
        tune(other, "mf", journal=journal, seconds=1, settings=FAST)


def test_a_protocol_that_the_split_does_not_have_is_refused(split, tmp_path):
    journal = tmp_path / "j"
    for more in (
        {"settings": FAST | {"protocol.negatives": 5}}, {"search": {"protocol.seed": [1, 2]}},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"protocol\.(negatives = 5|seed): "):
            tune(split, "fism", journal=journal, seconds=1, **more)
    assert not journal.exists()


def test_a_model_without_settings_is_refused(split, tmp_path):
    with pytest.raises(ConfigError, match="popularity has nothing to search"):
        tune(split, "popularity", journal=tmp_path / "j", seconds=1)


def test_a_journal_is_shown_as_it_was_searched(split, tmp_path):
    journal = tmp_path / "search.journal"
    tune(split, "itemknn", journal=journal, seconds=0.3)
    best = tune(split, "mf", journal=journal, seconds=0.3, settings=FAST)
    assert [search.model for search in history(journal)] == ["itemknn", "mf"]
    values = [trial.value for trial in trials_of(journal, "mf")]
    assert max(values) == pytest.approx(best["validation"]["NDCG@10"])
    section = searches([journal], {"A log": ["MF"], "Another": []})
    assert [line for line in section.text if "log: in the tables" in line] != []
    assert "Another" not in str(section.text)
    rows = {row[0]: row for row in section.tables[0].rows}
    assert rows["mf"][1] == str(len(values))
    assert "model.embedding_dim = 8" in rows["mf"][-1]  # fixed, and part of what was found
    (found,) = section.data.values()
    assert str(tmp_path) not in str(section)  # a report names files, not where they lay
    rising = [value for _, value in found["mf"]]
    assert rising == [max(values[: n + 1]) for n in range(len(values))]
    assert section.drawings[0].panels == {"search.journal": found}


def test_a_trial_ends_with_the_time_and_keeps_its_best_epoch(split, tmp_path, monkeypatch):
    from comet_rec.experiments import tuning

    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: next(clock))
    epochs = []

    def validate(config, split, device, hooks, trained):
        for epoch, figure in enumerate((0.2, 0.3, 0.25, 0.2), 1):
            progress = Progress(
                epoch, 4, 1, 1, 0.5, validation={"NDCG@10": figure}, finished_epoch=True
            )
            hooks.report("validation", progress)
            epochs.append(epoch)
            if hooks.stop():
                raise TrainingInterrupted("stopped")
        return {"NDCG@10": 0.3}, 2

    monkeypatch.setattr(tuning, "validate", validate)
    journal = tmp_path / "j"
    found = tune(split, "mf", journal=journal, seconds=75, settings=FAST)
    # The first is let finish (50 s); of the second 25 s are left, so it ends with its third epoch.
    assert epochs == [1, 2, 3, 4, 1, 2, 3]
    assert [trial.value for trial in trials_of(journal, "mf")] == [0.3, 0.3]
    assert found["seconds"] == pytest.approx(90)
    assert found["epochs"] == 2
    assert [trial.cut for trial in trials_of(journal, "mf")] == [False, True]
    one, two = (trial.settings for trial in trials_of(journal, "mf"))
    assert one != two
    # Whoever goes on does not take the second for tried.
    tune(split, "mf", journal=journal, seconds=5_000, settings=FAST)
    whole = [trial.settings for trial in trials_of(journal, "mf") if not trial.cut]
    assert two in whole


def test_what_a_killed_trial_took_is_counted_and_it_is_closed(split, tmp_path, monkeypatch):
    from comet_rec.experiments import tuning

    class Killed(BaseException):
        """No error that anybody catches."""

    def validate(config, split, device, hooks, trained):
        done = Progress(1, 4, 1, 1, 0.5, validation={"NDCG@10": 0.2}, finished_epoch=True)
        hooks.report("validation", done)
        raise Killed

    monkeypatch.setattr(tuning.time, "perf_counter", iter(range(0, 10_000, 40)).__next__)
    journal = tmp_path / "j"
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "validate", validate)
        with pytest.raises(Killed):
            tune(split, "mf", journal=journal, seconds=100, settings=FAST)
    study = _opened(tuning, journal, split)
    (left,) = study.trials
    assert (left.state.name, left.user_attrs["seconds"]) == ("RUNNING", 40)
    # Its time is used up, and still the search has the one training that it was promised.
    tune(split, "mf", journal=journal, seconds=10, settings=FAST)
    study = _opened(tuning, journal, split)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


def test_a_space_of_ones_own(split, tmp_path):
    journal = tmp_path / "j"
    search = {"model.neighbours": ["5", "10"]}
    found = tune(split, "itemknn", journal=journal, seconds=60, search=search)
    assert set(found["settings"]) == {"model.neighbours"}
    tried = [trial.settings["model.neighbours"] for trial in trials_of(journal, "itemknn")]
    assert sorted(tried) == [5, 10]
    with pytest.raises(
        ConfigError, match="its search was begun with other values; give another journal="
    ):
        tune(split, "itemknn", journal=journal, seconds=60, search={"model.neighbours": ["7"]})
    with pytest.raises(ConfigError, match="neighbours"):
        tune(split, "itemknn", journal=tmp_path / "k", seconds=1, search={"model.neighbours": [-1]})
    with pytest.raises(ConfigError, match="did you mean"):
        tune(split, "itemknn", journal=tmp_path / "k", seconds=1, search={"model.neighbour": [1]})
    assert not (tmp_path / "k").exists()


def test_a_refused_call_writes_nothing_into_the_journal(split, tmp_path):
    journal = tmp_path / "j"
    search = {"model.neighbours": [5, 10]}
    tune(split, "itemknn", journal=journal, seconds=60, search=search)
    before = journal.read_text()
    for wrong in ({"search": {"model.neighbours": [7]}}, {"seed": 3}, {"device": "nowhere"}):
        with pytest.raises(ConfigError):
            tune(split, "itemknn", journal=journal, seconds=60, **{"search": search} | wrong)
    assert _without_joins(journal.read_text()) == _without_joins(before)
    tune(split, "itemknn", journal=journal, seconds=60, search=search)


def _without_joins(text):
    """Optuna writes a line when it asks for a study that is there."""
    return [line for line in text.splitlines() if json.loads(line)["op_code"] != 0]


def test_values_that_are_alike_or_cannot_stand_together_end_a_search(split, tmp_path):
    told = []
    found = tune(
        split, "ease", journal=tmp_path / "a", seconds=600, search={"model.l2": ["10", "10.0"]}
    )
    assert found["trials"] == 1
    search = {"train.loss": ["bce", "softmax"], "train.mask_known_positives": ["true", "false"]}
    found = tune(
        split, "mf", journal=tmp_path / "b", seconds=600, search=search, settings=FAST,
        say=told.append,
    )  # fmt: skip
    assert sum("left out" in line for line in told) == 1  # bce masks nothing
    assert len(told) == 4
    wrong = {"train.loss": ["bce"], "train.mask_known_positives": ["true"]}
    with pytest.raises(ConfigError, match="mask_known_positives"):
        tune(split, "mf", journal=tmp_path / "c", seconds=1, search=wrong, settings=FAST)


def test_values_to_search_are_told_apart_by_commas_outside_brackets():
    from comet_rec.cli.options import values

    assert values("32,64, 128") == ["32", "64", "128"]
    assert values("[64],[64,32]") == ["[64]", "[64,32]"]


def test_what_is_no_journal_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        history(tmp_path / "nowhere.journal")
    for text in ("user,item\n1,2\n", "{}\n", ""):
        (tmp_path / "log.csv").write_text(text)
        with pytest.raises(ConfigError, match="not a journal"):
            history(tmp_path / "log.csv")


def _opened(tuning, journal, split):
    fixed, space = tuning.settled(split, "mf", "auto", FAST, None, 0)
    return open_study(journal, fixed, split, space, FAST)


def test_settings_that_do_not_go_together_are_left_out(split, tmp_path):
    """A fixed one of the softmax and another loss: both would be told as what was found."""
    given = FAST | {"train.softmax_items": 9}
    losses = {"train.loss": ["softmax", "bce"]}
    found = tune(
        split, "fism", journal=tmp_path / "j", seconds=9, preset_name="best", settings=given,
        search=losses,
    )  # fmt: skip
    assert found["settings"] == {"train.loss": "softmax"}
    searched = searched_on([tmp_path / "j"], split, "best")["fism"]
    model = cr.FISM(preset="best", **searched)
    assert model.config_for(split.interactions).train.softmax_items == 9


def test_another_grid_after_an_interrupted_first_trial_is_refused(split, tmp_path, monkeypatch):
    from comet_rec.experiments import tuning

    def killed(*given):
        raise KeyboardInterrupt

    given = {"journal": tmp_path / "j", "seconds": 60, "preset_name": "paper"}
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "validate", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(split, "ease", search={"model.l2": [10, 20]}, **given)
    with pytest.raises(
        ConfigError, match="its search was begun with other values; give another journal="
    ):
        tune(split, "ease", search={"model.l2": [10, 20, 30]}, **given)
    assert tune(split, "ease", search={"model.l2": [10, 20]}, **given)["trials"] == 2


def test_trials_are_what_was_trained(split, tmp_path):
    """Repeats of the sampler, and values that no setting can have, are none."""
    search = {"model.l2": [5.0, 50.0, float("nan")]}
    found = tune(split, "ease", journal=tmp_path / "j", seconds=60, search=search)
    assert found["trials"] == len(trials_of(tmp_path / "j", "ease")) == 2
    with pytest.raises(ConfigError, match="ease: nothing to search, since every setting is fixed"):
        tune(split, "ease", journal=tmp_path / "k", seconds=1, settings={"model.l2": 5})


def test_a_second_model_that_no_trial_changes_is_trained_once(split, tmp_path, monkeypatch):
    from comet_rec.experiments import tuning

    trained, whole = [], tuning.fit

    def counted(config, *given, **more):
        trained.append(config.name)
        return whole(config, *given, **more)

    monkeypatch.setattr(tuning, "fit", counted)
    settings = FAST | {
        "train.epochs": 1,
        "model.hidden": "8",
        "blend.model": "fism",
        "blend.embedding_dim": 4,
    }
    found = tune(
        split, "comet", journal=tmp_path / "j", seconds=60, preset_name="best",
        settings=settings, search={"train.learning_rate": [1e-3, 2e-3, 5e-3]},
    )  # fmt: skip
    assert found["trials"] == 3
    assert trained == ["fism", "comet", "comet", "comet"]


def test_what_a_search_found_is_known_for_its_own_log_and_preset(split, tmp_path, random_log):
    journals = [tmp_path / "a.journal", tmp_path / "b.journal"]
    best = [
        tune(
            split,
            "fism",
            journal=journal,
            seconds=0.2,
            preset_name="paper",
            settings=FAST | {"train.epochs": epochs},
        )
        for journal, epochs in zip(journals, (1, 4), strict=True)
    ]
    better = max((0, 1), key=lambda n: best[n]["validation"]["NDCG@10"])
    found = searched_on(journals, split, "paper")
    assert found == {"fism": {**FAST, "train.epochs": (1, 4)[better], **best[better]["settings"]}}
    assert searched_on(journals, split, "best") == {}
    other = cr.leave_one_out(random_log(30, 60, 8), negatives=20)
    assert searched_on(journals, other, "paper") == {}
    another_protocol = cr.leave_one_out(split.interactions, negatives=20)
    assert searched_on(journals, another_protocol, "paper") == {}


def test_tables_of_algorithms_take_what_was_searched_on_their_log(split, tmp_path):
    """What the budget settles stays, and so do the settings of all other trainings."""
    from comet_rec.experiments.plans import FULL, SMOKE, Planner

    journal = tmp_path / "search.journal"
    hidden = {"model.hidden": ["[8]", "[16,4]"]}
    tune(
        split, "mlp", journal=journal, seconds=0.01, preset_name="paper", settings=FAST,
        search=hidden,
    )  # fmt: skip
    searched = searched_on([journal], split, "paper")
    chosen = searched["mlp"]["model.hidden"]
    assert chosen in ((8,), (16, 4))
    log = split.interactions
    for budget in (SMOKE, FULL):
        plain = {job.label: job for job in Planner("small", log, budget).algorithms()}
        taken = {job.label: job for job in Planner("small", log, budget, searched).algorithms()}
        for label in plain.keys() - {"MLP"}:
            assert taken[label] == plain[label]
        planner = Planner("small", log, budget, {**searched, "neumf": {"train.epochs": 1}})
        assert planner.taken() == ([] if budget is SMOKE else ["MLP"])  # NeuMF starts from others
        settings = {**FAST, "model.hidden": chosen, **budget.settings("mlp")}
        config = taken["MLP"].estimator().config_for(log)
        assert config == plain["MLP"].estimator().config_for(log).with_settings(settings)
        assert len({taken["MLP"], plain["MLP"]}) == (1 if budget is SMOKE else 2)  # looked up


def test_comets_search_counts_where_the_table_has_its_preset(split, monkeypatch):
    from comet_rec.experiments import plans
    from comet_rec.experiments.plans import FULL

    searched = {"comet": {"train.learning_rate": 0.5}}

    def rate():
        planner = plans.Planner("small", split.interactions, FULL, searched)
        job = next(job for job in planner.algorithms() if job.label == "COMET")
        return job.estimator().config_for(split.interactions).train.learning_rate

    assert rate() != 0.5  # the preset static
    monkeypatch.setattr(plans, "MEDIUM", 10)
    assert rate() == 0.5


EVIL = "a|b`c\x1b[31m<script>alert(1)</script>\n| d | ![x](http://x/y) \u202e"
STUDY = {"op_code": 0, "worker_id": "w", "study_name": "itemknn", "directions": [2]}
TRIAL = {
    "op_code": 4, "worker_id": "w", "study_id": 0, "state": 1, "value": 0.5, "params": {"k": 0},
    "datetime_start": "2026-01-01T00:00:00", "datetime_complete": "2026-01-01T00:00:01",
    "distributions": {"k": json.dumps({"name": "CategoricalDistribution",
                                       "attributes": {"choices": ["[1"]}})},
    "user_attrs": {"seconds": 1}, "system_attrs": {}, "intermediate_values": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "lines",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"op_code": ' + "9" * 5000 + "}",
        '{"op_code": 99}',
        "1\n[]\nnull",
        json.dumps({**STUDY, "study_name": EVIL}),
        f"{json.dumps(STUDY)}\n{json.dumps(TRIAL)}",
        json.dumps(STUDY) + "\n" + json.dumps({**TRIAL, "user_attrs": {"seconds": "x"}}),
    ],
)
def test_lines_of_another_file_are_no_journal(lines, tmp_path, capsys):
    journal = tmp_path / "j"
    journal.write_text(lines + "\n")
    with pytest.raises(ConfigError, match="not a journal"):
        history(journal)
    rows = [f"{u},{i}" for u in range(9) for i in range(u % 3, 30, 2)]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    words = ["tune", str(tmp_path / "log.csv"), "--models", "itemknn", "--seconds", "1"]
    search = ["--search", "model.neighbours=5", "--quiet"]
    status = run([*words, *search, "--journal", str(journal)])
    err = capsys.readouterr().err
    if EVIL[:3] not in lines:  # a study of another name is in nobody's way
        assert status == 2
        assert err.count("\n") == 1
        assert "not a journal" in err


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_no_journal(kind, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    place = {"pipe": tmp_path / "pipe", "device": "/dev/zero", "folder": tmp_path}[kind]
    with pytest.raises(InputError, match=f"is a {kind}"):
        history(type(tmp_path)(place))
    (tmp_path / "log.csv").write_text("user,item\n1,2\n")
    words = ["tune", str(tmp_path / "log.csv"), "--models", "itemknn", "--journal", str(place)]
    assert run(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
