"""Version, extras, workflow files and issue forms agree with the project."""

import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

import comet_rec

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [
    path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"
]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def make_targets():
    return set(re.findall(r"^([\w-]+):", text("Makefile"), re.MULTILINE))


def jobs(workflow):
    return yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()


def steps(workflow):
    return [step for job in jobs(workflow) for step in job["steps"]]


def test_version_of_the_package_is_that_of_the_citation_and_the_change_log():
    cited = yaml.safe_load(text("CITATION.cff"))
    version, released = re.search(r"^## \[(\d\S*)\] - (\S+)$", text("CHANGELOG.md"), re.M).groups()
    assert cited["version"] == version == comet_rec.__version__
    assert cited["date-released"] == date.fromisoformat(released)


def test_classifiers_name_the_versions_of_python_that_the_workflow_tests():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    named = [each.split(" :: ")[-1] for each in project["classifiers"] if re.search(r"3\.\d", each)]
    tested = [
        job["strategy"]["matrix"]["python"] for job in jobs(WORKFLOWS[0]) if "strategy" in job
    ]
    assert tested == [named, named]


def test_setup_installs_every_extra_and_group():
    pyproject = tomllib.loads(text("pyproject.toml"))
    extras = re.search(r'-e "\.\[(.+)\]"', text("Makefile"))[1].split(",")
    assert sorted(extras) == sorted(pyproject["project"]["optional-dependencies"])
    groups = re.findall(r"--group (\w+)", text("Makefile"))
    assert sorted(groups) == sorted(pyproject["dependency-groups"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_make_targets_that_exist(workflow):
    called = [
        target
        for step in steps(workflow)
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE)
    ]
    assert called
    assert set(called) <= make_targets()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_pin_actions_and_have_few_permissions(workflow):
    parsed = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert parsed["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert [action for action in used if not re.search(r"@(v\d|release/v\d)", action)] == []


def test_release_uses_no_token():
    release = ROOT / ".github" / "workflows" / "release.yml"
    granted = [job["permissions"] for job in jobs(release) if "permissions" in job]
    assert granted == [{"id-token": "write"}]
    assert "secrets." not in release.read_text(encoding="utf-8")


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_for_a_small_log_the_command_and_the_version(form):
    fields = yaml.safe_load(form.read_text(encoding="utf-8"))["body"]
    required = {field["id"] for field in fields if field.get("validations", {}).get("required")}
    assert {"log", "command", "version"} <= required


def test_importing_the_package_and_the_command_line_loads_no_extra_and_nothing_slow():
    code = "import comet_rec, comet_rec.cli.app, sys; comet_rec.COMET; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "comet_rec.estimators.estimator" in loaded
    extras = {
        "alembic", "faiss", "fastapi", "matplotlib", "mlflow", "onnx", "onnxruntime", "onnxscript",
        "optuna", "prometheus_client", "pydantic", "sqlalchemy", "starlette", "tensorboard",
        "uvicorn", "uvloop",
    }  # fmt: skip
    assert loaded & (extras | {"comet_rec.export", "comet_rec.serving", "scipy.stats"}) == set()
