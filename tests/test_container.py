"""The image, Compose, the proxy and their page agree with the project.

No container is built here: `make check-image` does that.
"""

import http.server
import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from comet_rec.cli.app import app
from comet_rec.serving import gate, server
from comet_rec.serving.metrics import Metrics
from tests.docs.test_readme import blocks

ROOT = Path(__file__).parents[1]
SECONDS = {"s": 1, "m": 60}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def instructions():
    """Instructions of the Dockerfile, each with its arguments on one line."""
    lines = re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", lines)
    return [tuple(line.split(maxsplit=1)) for line in lines.splitlines() if line]


def arguments(name):
    return [rest for instruction, rest in instructions() if instruction == name]


def project():
    return tomllib.loads(text("pyproject.toml"))


def services():
    return yaml.safe_load(text("examples/compose.yml"))["services"]


def caddy(name):
    """The only value of a setting of the Caddyfile."""
    (value,) = re.findall(rf"^\s*{re.escape(name)} (.+)$", text("examples/Caddyfile"), re.MULTILINE)
    return value


def seconds(duration):
    return int(duration[:-1]) * SECONDS[duration[-1]]


def parse(command):
    """Parse a command line without running it; a wrong option raises."""
    group = typer.main.get_command(app)
    name, *rest = command
    return group.commands[name].make_context(name, list(rest)).params


def copied():
    """Files and folders that the Dockerfile copies from the clone."""
    plain = [rest.split() for rest in arguments("COPY") if not rest.startswith("--from")]
    return [source for *sources, _ in plain for source in sources]


def test_copied_files_exist_and_are_all_that_the_build_may_see():
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    ignored = text(".dockerignore").splitlines()
    assert "*" in ignored
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied())


def test_build_copies_what_the_package_needs():
    declared = project()["project"]
    assert {declared["readme"], *declared["license-files"], "pyproject.toml"} <= set(copied())
    assert Path(project()["tool"]["hatch"]["version"]["path"]).parts[0] in copied()


def test_install_uses_the_constraints_and_an_extra_that_exists():
    (install,) = [step for step in arguments("RUN") if " install " in step and "pip" in step]
    assert re.search(r"-c (\S+)", install)[1] in copied()
    (extra,) = re.findall(r'"\.\[(\w+)\]"', install)
    assert extra in project()["project"]["optional-dependencies"]
    assert "$PIP_ARGS" in install
    assert 'PIP_ARGS=""' in arguments("ARG")
    assert '--build-arg PIP_ARGS="$(PIP_ARGS)"' in text("Makefile")


def test_steps_write_only_where_the_last_stage_looks():
    (environment,) = re.findall(r"-m venv .*?(/\S+)", " ".join(arguments("RUN")))
    assert f"--from=build {environment} {environment}" in arguments("COPY")
    assert f"PATH={environment}/bin:$PATH" in arguments("ENV")[0]


def test_both_stages_have_one_base_with_a_python_that_the_project_supports():
    bases = [rest.removesuffix(" AS build") for rest in arguments("FROM")]
    assert len(bases) == 2
    assert len(set(bases)) == 1  # the environment links to the Python of the base
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", bases[0])[1]
    assert f"Programming Language :: Python :: {version}" in project()["project"]["classifiers"]
    least = re.fullmatch(r">=3\.(\d+)", project()["project"]["requires-python"])[1]
    assert int(version.split(".")[1]) >= int(least)


def test_entry_point_is_the_command_line_and_gets_the_signals():
    (entry,) = arguments("ENTRYPOINT")
    (name,) = json.loads(entry)  # without a shell, which would keep signals to itself
    assert name in project()["project"]["scripts"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(arguments("CMD")[0]) == ["--help"]


def test_user_is_not_root_and_owns_the_only_volume():
    user, group = map(int, arguments("USER")[0].split(":"))
    assert user > 0
    assert group > 0
    (volume,) = arguments("VOLUME")
    created = f"install --directory --owner={user} --group={group} {volume}"
    assert created in arguments("RUN")
    assert [volume] == arguments("WORKDIR")[-1:]
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1), (None, 1)])
def test_health_check_follows_the_answer_of_readyz(status, exit_status):
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    probe = json.loads(arguments("HEALTHCHECK")[0].split(" CMD ")[1])
    assert arguments("EXPOSE") == ["8000"]
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        port = listening.server_port
        if status is None:
            listening.shutdown()
            listening.server_close()
        assert probe[0] == "python"
        program = [sys.executable, *(part.replace("8000", str(port)) for part in probe[1:])]
        done = subprocess.run(program, capture_output=True, timeout=30)
        listening.shutdown()
    assert done.returncode == exit_status
    assert asked == ([] if status is None else ["/readyz"])


@pytest.mark.parametrize("name", ["train", "serve"])
def test_commands_of_compose_are_accepted(name):
    parsed = parse(services()[name]["command"])
    (volume,) = arguments("VOLUME")
    folder = parsed["out"] if name == "train" else parsed["run"]
    assert str(folder).startswith(f"{volume}/")


def test_training_in_compose_reads_the_example_of_a_log():
    command = services()["train"]["command"]
    log = ROOT / "examples" / Path(command[1]).name
    header = log.read_text(encoding="utf-8").splitlines()[0].split(",")
    parsed = parse(command)
    assert {parsed["user"], parsed["item"], parsed["time"]} <= set(header)


@pytest.mark.parametrize("name", ["train", "serve", "proxy"])
def test_containers_of_compose_have_few_rights_and_limits(name):
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit"} <= set(service)
    assert re.fullmatch(r"comet-rec|\w+:\d[\w.-]*", service["image"])
    assert ("ports" in service) == (name == "proxy")


def test_service_of_compose_reads_its_keys_from_a_secret_and_its_runs_only():
    compose = yaml.safe_load(text("examples/compose.yml"))
    service = compose["services"]["serve"]
    (secret,) = service["secrets"]
    assert str(parse(service["command"])["keys"]) == f"/run/secrets/{secret}"
    assert f"/{Path(compose['secrets'][secret]['file'])}" in [
        line.removeprefix("/examples") for line in text(".gitignore").splitlines()
    ]
    assert service["volumes"] == ["runs:/runs:ro"]
    assert compose["networks"]["inside"] == {"internal": True}
    assert service["networks"] == ["inside"]


def test_service_of_compose_has_time_for_its_drain():
    service = services()["serve"]
    assert seconds(service["stop_grace_period"]) > parse(service["command"])["drain"] + 1


def test_proxy_passes_only_the_page_and_the_interface():
    assert caddy("@open path").split() == ["/", "/openapi.json", "/v1/*"]
    assert text("examples/Caddyfile").count("reverse_proxy") == 1
    assert caddy("request") == "delete"  # the part of a line of the log with the client's address
    assert caddy("header_up") == "-X-Forwarded-For"
    assert caddy("reverse_proxy {$SERVICE:serve:8000}") == "{"


def test_limits_of_the_proxy_fit_those_of_the_service():
    assert caddy("max_size") == f"{gate.MOST_BODY >> 20}MiB"
    assert f"> {gate.MOST_BODY}`" in text("examples/Caddyfile")
    assert seconds(caddy("read_body")) > gate.BODY_SECONDS
    assert seconds(caddy("keepalive")) < server.IDLE_SECONDS
    assert seconds(caddy("idle")) == server.IDLE_SECONDS


def test_commands_of_the_page_are_accepted():
    page = text("docs/deploy.md")
    (unit,) = blocks(page, "ini")
    started = shlex.split(re.search(r"^ExecStart=\S+/comet-rec (.+)$", unit, re.MULTILINE)[1])
    drain = parse(started)["drain"]
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > drain + 1

    shell = re.sub(r"\\\n\s*", "", "\n".join(blocks(page, "bash")))
    in_image = re.findall(r"^docker run .* comet-rec (.+)$", shell, re.MULTILINE)
    updates = re.findall(r"^docker compose run .* train (update .+)$", shell, re.MULTILINE)
    assert [command.split()[0] for command in in_image] == ["train", "serve"]
    assert len(updates) == 1
    for command in in_image + updates:
        parse(shlex.split(command))


def test_alerts_of_the_page_name_metrics_that_exist():
    (rules,) = blocks(text("docs/deploy.md"), "yaml")
    expressions = [rule["expr"] for rule in yaml.safe_load(rules)["groups"][0]["rules"]]
    named = set(re.findall(r"comet_rec_\w+", " ".join([*expressions, text("docs/deploy.md")])))
    metrics = Metrics()
    metrics.requests.labels("/", "200").inc()
    metrics.seconds.labels("/").observe(1)
    metrics.serving({"main": ("comet", "0")})
    shown = set(re.findall(r"^(comet_rec_\w+)", metrics.text().decode(), re.MULTILINE))
    assert named <= shown
    assert named


def test_first_refused_swap_is_an_increase():
    assert 'comet_rec_swaps_total{result="refused"} 0.0' in Metrics().text().decode()
