"""The audit of runs: what is stored must be what the parts give again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import comet_rec as cr
from comet_rec.artefact.folder import write_folder
from comet_rec.artefact.run import Run, save_run
from comet_rec.errors import ArtefactError
from comet_rec.estimators.audit import audit_folder, audit_run
from comet_rec.estimators.evaluate import measured
from tests.evaluation.planted import N_USERS, clean, item_of_test_in_training

SMALL = {"preset": "static", "embedding_dim": 8, "history_length": 5, "epochs": 1, "hidden": (8,)}


@pytest.fixture(scope="module")
def run() -> Run:
    return measured(cr.COMET(**SMALL).fit(clean()).run)


def checks(run: Run) -> dict[str, tuple[str, int, int]]:
    return {f.check: (f.severity, f.count, f.of) for f in audit_run(run)}


def test_a_clean_run_gives_silence(run, tmp_path):
    assert audit_run(run) == []
    save_run(run, tmp_path / "run")
    assert audit_folder(tmp_path / "run") == []
    everything = cr.COMET(**SMALL, full_epochs=1).fit(clean().interactions).run
    assert audit_run(everything) == []


@pytest.mark.parametrize("name", ["EASE", "MLP", "Popularity", "FISM"])
def test_other_models_have_no_error_either(name):
    model = getattr(cr, name)()
    model.settings = {} if name in ("EASE", "Popularity") else {"epochs": 1}
    found = audit_run(model.fit(clean()).run)
    assert {f.check for f in found} <= {"tied-scores"}
    assert any(f.check == "tied-scores" for f in found) == (name == "Popularity")


def test_a_run_on_disk_without_figures_lacks_all_of_them(run, tmp_path):
    save_run(replace(run, metrics=None), tmp_path / "run")
    (finding,) = audit_folder(tmp_path / "run")
    assert (finding.check, finding.count, finding.of) == ("metrics-differ", 8, 8)


def test_a_kept_target_is_an_error():
    found = checks(cr.COMET(**SMALL, exclude_target=False).fit(clean()).run)
    assert set(found) == {"target-in-history"}


def test_leaks_of_the_split_are_found_in_its_run(run):
    assert "test-in-training" in checks(replace(run, split=item_of_test_in_training(clean())))


def test_figures_that_are_not_the_run_s_own(run):
    metrics = json.loads(json.dumps(run.metrics))
    metrics["sampled"]["HR@10"] += 1e-6
    (finding,) = audit_run(replace(run, metrics=metrics))
    assert (finding.check, finding.count, finding.of) == ("metrics-differ", 1, 16)
    assert finding.example is not None
    assert finding.example["figure"] == "sampled HR@10"
    del metrics["sampled_se"]["NDCG@5"]
    assert checks(replace(run, metrics=metrics)) == {"metrics-differ": ("error", 2, 16)}
    metrics = run.metrics | {"protocol": run.metrics["protocol"] | {"hash": "f" * 64}}
    assert checks(replace(run, metrics=metrics)) == {"protocol-hash": ("error", 1, 1)}
    without_full = run.metrics | {"full": None, "full_se": None}
    assert audit_run(replace(run, metrics=without_full)) == []


def test_numbers_that_are_none(run):
    vectors = run.item_vectors.clone()
    vectors[3, 1] = float("nan")
    found = checks(replace(run, item_vectors=vectors))
    assert set(found) == {"not-finite"}
    state = {name: value.clone() for name, value in run.state.items()}
    next(iter(state.values())).view(-1)[0] = float("inf")
    found = checks(replace(run, state=state))
    assert found["not-finite"] == ("error", 1, len(state) + 2)


def test_scores_that_say_nothing(run):
    """All equal: constant. Half of the items equal: many ties."""
    flat = replace(run, item_vectors=torch.ones_like(run.item_vectors))
    found = checks(flat)
    assert found["constant-scores"] == ("error", N_USERS, N_USERS)
    assert set(found) == {"constant-scores", "metrics-differ"}
    half = run.item_vectors.clone()
    half[::2] = half[0].clone()
    assert checks(replace(run, item_vectors=half))["tied-scores"][0] == "warning"


def test_a_damaged_run_is_a_finding_and_none_is_an_error(run, tmp_path):
    save_run(run, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text() + "\n")
    (finding,) = audit_folder(tmp_path / "run")
    assert (finding.check, finding.severity) == ("artefact-digests", "error")
    assert "config.toml" in finding.message
    with pytest.raises(ArtefactError, match="is not a run"):
        audit_folder(tmp_path)


def test_a_protocol_that_is_not_the_one_of_its_hash(run, tmp_path):
    """Every digest is right, and still the candidates are others."""
    other = cr.leave_one_out(run.interactions, negatives=20, seed=1)
    save_run(run, tmp_path / "run")
    save_run(replace(run, split=other), tmp_path / "other")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())

    def mixed(fresh):
        for name in manifest["files"]:
            home = "other" if name == "protocol.safetensors" else "run"
            (fresh / name).write_bytes((tmp_path / home / name).read_bytes())
        return {k: v for k, v in manifest.items() if k not in ("schema", "files", "sha256")}

    write_folder(tmp_path / "mixed", mixed)
    (finding,) = audit_folder(tmp_path / "mixed")
    assert finding.check == "artefact-consistency"
    assert "the protocol does not match its hash" in finding.message
