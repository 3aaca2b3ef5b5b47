"""The examples for clusters: files that their programs accept, and commands that run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "examples" / "cluster" / "slurm.sh"
KUBERNETES = ROOT / "examples" / "cluster" / "kubernetes.yaml"
SBATCH = {
    "job-name": r"[\w-]+", "nodes": r"\d+", "ntasks-per-node": r"\d+", "cpus-per-task": r"\d+",
    "mem": r"\d+[MG]", "time": r"\d+:\d\d:\d\d", "signal": r"TERM@\d+", "requeue": "",
}  # fmt: skip
"""Options of sbatch's manual, with the form of their values."""


def test_sbatch_would_take_the_options():
    lines = SLURM.read_text().splitlines()
    options = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    assert options
    for option in options:
        name, _, value = option.partition("=")
        assert re.fullmatch(SBATCH[name], value), option
    # sbatch stops looking for options at the first command.
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])
    subprocess.run(["bash", "-n", str(SLURM)], check=True)


@pytest.mark.slow
def test_the_job_of_slurm_trains_and_writes_lists(tmp_path):
    """With stand-ins for srun and scontrol, on one machine instead of four."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", 'exec "$@"'), ("scontrol", "echo localhost")):
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    rows = [f"u{u},i{(7 * u + 3 * n) % 40},{n}" for u in range(60) for n in range(8)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    job = SLURM.read_text().replace("  -m comet_rec train", "  -m comet_rec train --model mf")
    (tmp_path / "job.sh").write_text(job)
    environment = {
        **os.environ, "PATH": f"{programs}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log.csv"), "RUN": str(tmp_path / "run"), "PROCESSES": "2",
        "SLURM_CPUS_PER_TASK": "2", "SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "7",
    }  # fmt: skip
    subprocess.run(["bash", str(tmp_path / "job.sh")], check=True, env=environment, timeout=300)
    assert (tmp_path / "run" / "manifest.json").exists()
    names = sorted(path.name for path in (tmp_path / "run-lists").iterdir())
    assert names == ["1-of-2.parquet", "2-of-2.parquet"]


def test_the_pods_of_kubernetes_meet_at_the_first_one():
    service, job = yaml.safe_load_all(KUBERNETES.read_text())
    name = job["metadata"]["name"]
    pod = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    port = service["spec"]["ports"][0]["port"]
    assert f"--rdzv-endpoint={name}-0.{pod['subdomain']}:{port}" in container["command"]
    assert f"--nnodes={job['spec']['parallelism']}" in container["command"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"]


def test_kubernetes_would_take_the_job():
    for document in yaml.safe_load_all(KUBERNETES.read_text()):
        kubernetes_validate.validate(document, "1.30", strict=True)
