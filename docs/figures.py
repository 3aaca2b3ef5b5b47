"""Write docs' pages of figures, and the tables of README and docs/results.md, from results/.

python docs/figures.py            # write them
python docs/figures.py --check    # exit status 1 if a page and results/ disagree
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
SOURCE = "Written by `python docs/figures.py` from the files named; do not edit."


def load(name: str) -> dict[str, Any] | None:
    """A result, or None where it was not made yet."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def on(result: dict[str, Any], name: str) -> str:
    """Where figures come from: file, command, machine."""
    return f"`{result['command']}` → `results/{name}`; {where(result)}."


def where(result: dict[str, Any]) -> str:
    """The machine."""
    machine = result["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}"


def throughput(result: dict[str, Any], name: str) -> list[str]:
    port = result["literal_positives_per_second"]
    lines = [
        f"## Training at the paper's setting, {result['machine']['cpu']}",
        "",
        "Positives a second of the whole training loop beside the frozen literal port (both towers "
        "for each of the five pairs), and tower passes, in the loop and forward and backward "
        "alone, against what the counted operations allow at the float32 sgemm rate of that run.",
        "",
        "| batch | positives/s | × Conv2d port | × Conv1d port | passes a positive | passes/s "
        "| share of sgemm | towers alone | peak of a step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size, row in result["batches"].items():
        lines.append(
            f"| {size} "
            f"| {row['positives_per_second']:,.0f} "
            f"| {row['times_conv2d_port']:.0f} | {row['times_conv1d_port']:.0f} "
            f"| {row['passes_per_positive']:.2f} | {row['passes_per_second']:,.0f} "
            f"| {row['share_of_sgemm']:.0%} | {towers_alone(row)} "
            f"| {row['peak_step_mib']:,.0f} MiB |"
        )
    lines += [
        "",
        f"The port: {port['conv2d']:.0f} positives/s with Conv2d, {port['conv1d']:.0f} with "
        f"Conv1d; sgemm {result['sgemm_gflops']:.0f} GFLOP/s. {on(result, name)}",
    ]
    return lines


def towers_alone(row: dict[str, Any]) -> str:
    share = row.get("towers_share_of_sgemm")  # earlier runs did not time them
    return "" if share is None else f"{share:.0%}"


def ranking(result: dict[str, Any], name: str) -> list[str]:
    return [
        "## Ranking",
        "",
        "| what | figure |",
        "|---|---|",
        f"| full ranking of {result['users']:,} users × {result['items']:,} items over the bare "
        f"tower passes and product | {result['full_ranking_over_bare']:.2f} |",
        "| the same pairs through the model, pair by pair, over the full ranking "
        f"| {result['pairs_over_full_ranking']:,.0f} |",
        "| ten best of a million items, K = 128: share of the sgemm rate "
        f"| {result['top_10_share_of_sgemm']:.0%} |",
        "",
        on(result, name),
    ]


def reading(result: dict[str, Any], name: str) -> list[str]:
    lines = [
        f"## Reading {result['rows']:,} rows with text ids",
        "",
        "| format | library | bare query | ratio | peak memory |",
        "|---|---|---|---|---|",
    ]
    for form, row in result["formats"].items():
        lines.append(
            f"| {form} | {row['seconds']['library']:.1f} s | {row['seconds']['bare']:.1f} s "
            f"| {row['ratio']:.2f} | {row['peak_mib']['library']:,.0f} MiB |"
        )
    return [*lines, "", on(result, name)]


def list_times(result: dict[str, Any], name: str) -> list[str]:
    new = result["new_user"]
    lines = [
        "## Lists",
        "",
        "A list of ten for one new user of MovieLens-1M, from a history: "
        f"{new['median_ms']:.1f} ms (median; the first call, which builds the model, "
        f"{new['first_ms']:.0f} ms).",
        "",
        "The ten best items for a user, K = 128, exactly; bare is the product and `torch.topk`. "
        "Processor time of one thread, medians:",
        "",
        "| items | `recommend` | search alone | bare | ratio | in blocks, a user | bare | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["top_10"]:
        lines.append(
            f"| {row['items']:,} | {row['recommend_ms']:.1f} ms | {row['search_ms']:.1f} ms "
            f"| {row['bare_ms']:.1f} ms | {row['ratio']:.2f} "
            f"| {row['block_search_ms_a_user']:.2f} ms | {row['block_bare_ms_a_user']:.2f} ms "
            f"| {row['block_ratio']:.2f} |"
        )
    lines += [
        "",
        "Lists of ten for all users to Parquet, K = 64. Memory is that of the process: library, "
        "log and vectors before, and the peak.",
        "",
        "| users | items | processor time | users a second of it | memory before | peak |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["to_file"]:
        lines.append(
            f"| {row['users']:,} | {row['items']:,} | {row['cpu_seconds']:.0f} s "
            f"| {row['users'] / row['cpu_seconds']:,.0f} "
            f"| {row['mib_before']:,.0f} MiB | {row['mib_peak']:,.0f} MiB |"
        )
    return [*lines, "", on(result, name)]


def fold_in(result: dict[str, Any], name: str) -> list[str]:
    figures = ("sampled HR@10", "sampled NDCG@10", "full HR@10", "full NDCG@10")
    lines = [
        "## New users",
        "",
        f"MovieLens-1M: {result['new_users']:,} of {result['users']:,} users are left out of a "
        "training, and folded in from all but their latest item. The same users in a training "
        "with all users stand beside them.",
        "",
        f"| model | users | {' | '.join(figures)} |",
        f"|---|---|{'---|' * len(figures)}",
    ]
    ways = {"trained": "trained on", "folded_in": "folded in", "lost": "lost"}
    for model, both in result["models"].items():
        for way, words in ways.items():
            cells = " | ".join(f"{both[way][figure]:.3f}" for figure in figures)
            lines.append(f"| {model} | {words} | {cells} |")
    settings = ", ".join(
        f"{key} = {value}" for key, value in result["settings"]["COMET"].items() if key != "preset"
    )
    preset = result["settings"]["COMET"]["preset"]
    about = f'COMET: preset "{preset}"' + (f" with {settings}" if settings else "")
    return [*lines, "", f"{about}. {on(result, name)}"]


def growth(result: dict[str, Any], name: str) -> list[str]:
    lines = [
        "## Growth",
        "",
        "![Cost of a tower pass, memory, and passes a positive](_static/growth.svg)",
        "",
        "| interactions | users | items | µs a tower pass | of the whole loop | held |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["sizes"]:
        lines.append(
            f"| {row['rows']:,} | {row['users']:,} | {row['items']:,} "
            f"| {row['microseconds_a_pass']:.0f} | {row['microseconds_of_the_loop_a_pass']:.0f} "
            f"| {row['bytes_held'] / 2**20:,.0f} MiB |"
        )
    lines += [
        "",
        f"The cost of a pass varies by {result['cost_of_a_pass_spread']:.0%}. Memory of a "
        f"training: {result['bytes_fixed'] / 2**20:,.0f} MiB, "
        f"{result['bytes_an_interaction']:.0f} bytes an "
        "interaction, and four times the embedding tables.",
        "",
        "| items | passes a positive, own negatives | with a pool | port's passes over ours | "
        "with a pool |",
        "|---|---|---|---|---|",
    ]
    for row in result["catalogues"]:
        lines.append(
            f"| {row['items']:,} | {row['own']:.2f} | {row['pool']:.2f} "
            f"| {row['port_passes_over_own']:.1f} | {row['port_passes_over_pool']:.1f} |"
        )
    return [*lines, "", on(result, name)]


def peers(result: dict[str, Any], name: str) -> list[str]:
    lines = [
        f"## Seconds to a validation HR@10 of {result['target']:.2f}, beside other libraries",
        "",
        "MovieLens-1M, one split and one set of candidates for all (leave-one-out by position in "
        "the user's sequence, 1 positive and 99 negatives). Weights see the training rows alone. "
        "The clock runs from the start of the process, imports, reading and the evaluation after "
        "every epoch included, to the written artefact of the first epoch that passes. Settings: "
        "`benchmarks/contestants.py`.",
        "",
        "| contestant | seconds | of these evaluating | epochs | validation HR@10 / NDCG@10 "
        "| test | test, validation item shown |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = sorted(result["contestants"], key=_place)
    lines += [_contestant(row) for row in rows]
    commands = dict.fromkeys(f"`{row['command']}`" for row in rows)
    machines = dict.fromkeys(where({**result, **row}) for row in rows)
    return [*lines, "", f"{', '.join(commands)} → `results/{name}`; {', '.join(machines)}."]


def _place(row: dict[str, Any]) -> tuple[int, float]:
    """Those that arrived by time, then the rest by how far they came."""
    if "not_run" in row:
        return 2, 0.0
    if row["reached"]:
        return 0, row["seconds"]
    return 1, -row["best"]["HR@10"] if row["best"] else 0.0


def _contestant(row: dict[str, Any]) -> str:
    version = row.get("versions", {}).get(row["package"], "")
    label = f"{row['name']} ({row['package']} {version})".replace(" )", ")")
    if "note" in row:
        label += f"; {row['note']}"
    if row["package"] == "comet-rec":
        label = f"**{label}**"
    if "not_run" in row:
        return f"| {label} | not run: {row['not_run']} | | | | | |"
    best = row["best"]
    if best is None:
        return f"| {label} | no epoch done in {row['cap']:,.0f} s | | 0 | | | |"

    def pair(found: dict[str, float] | None) -> str:
        return f"{found['HR@10']:.3f} / {found['NDCG@10']:.3f}" if found else ""

    if row["reached"]:
        seconds, validation = f"{row['seconds']:,.1f}", pair(best)
    else:
        over = row["seconds"] >= row["cap"]
        seconds = (
            f"not in {row['cap']:,.0f}" if over else f"never (ended after {row['seconds']:,.1f})"
        )
        validation = f"best {pair(best)}, epoch {best['epoch']}"
    return (
        f"| {label} | {seconds} | {row['evaluating_seconds']:,.1f} | {row['epochs']} "
        f"| {validation} | {pair(row.get('test'))} | {pair(row.get('test_validation_shown'))} |"
    )


def equal_accuracy(result: dict[str, Any], name: str) -> list[str]:
    lines = [
        "## Accuracy of the faster batches",
        "",
        "Validation NDCG@10 on MovieLens-1M, batches of 8,192 drawn uniformly and with "
        f"{result['positives_per_user']} positives of a user together.",
        "",
        "| seed | epochs | uniform | together | one standard error over users |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['seed']} | {row['epochs']} | {row['uniform']:.4f} | {row['together']:.4f} "
            f"| {row['standard_error']:.4f} |"
        )
    return [*lines, "", on(result, name)]


METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")
LOG_TITLES = {
    "ml-100k": "MovieLens-100K",
    "ml-1m-best": "MovieLens-1M",
    "ml-1m": "MovieLens-1M",
    "amazon-beauty": "Amazon Beauty",
    "amazon-cds": "Amazon CDs",
    "ml-latest-small": "MovieLens latest-small",
    "ml-1m-ratings": "MovieLens-1M, users 1 to 500",
}

VECTOR_TITLES = {"cds": "Amazon CDs", "synthetic 1000000": "synthetic"}


Section = tuple[str, Callable[[dict[str, Any], str], list[str]]]
PAGES: dict[str, tuple[str, list[Section]]] = {
    "benchmarks.md": (
        "# Benchmarks",
        [
            ("bench/throughput.json", throughput),
            ("bench/throughput-xeon.json", throughput),
            ("bench/equal-accuracy.json", equal_accuracy),
            ("bench/ranking.json", ranking),
            ("bench/lists.json", list_times),
            ("bench/fold-in.json", fold_in),
            ("bench/reading.json", reading),
            ("bench/growth.json", growth),
            ("bench/peers.json", peers),
        ],
    ),
}


def page(name: str) -> str:
    """A page's text."""
    title, sections = PAGES[name]
    parts = [title, SOURCE]
    for result_name, write in sections:
        result = load(result_name)
        if result is not None:
            parts.append("\n".join(write(result, result_name)))
    return "\n\n".join(parts) + "\n"


DIGITS = {"sampled": 3, "full": 4}
"""Decimals of a sampled metric, and of a full one."""


def standings(section: dict[str, Any], rows: Sequence[str] = ()) -> list[str]:
    """NDCG@10 of models on every log, sampled · full; the best shown in a column is bold.

    `rows` names the models and their order; without names every model of the section is shown.
    """
    logs = {log: of for log, of in section["data"].items() if "not run" not in of}
    means: dict[str, dict[str, dict[str, float]]] = {}
    for log, of in logs.items():
        for label, row in of.items():
            if runs := row.get("runs"):  # other rows were not run, or hold differences
                means.setdefault(label, {})[log] = {
                    kind: sum(run[kind]["NDCG@10"] for run in runs) / len(runs) for kind in DIGITS
                }
    shown = {label: means[label] for label in rows or means}
    best = {
        (log, kind): max(row[log][kind] for row in shown.values() if log in row)
        for log in logs
        for kind in DIGITS
    }
    titles = [LOG_TITLES.get(log, log) for log in logs]
    lines = [f"|NDCG@10|{'|'.join(titles)}|", "|---" * (len(logs) + 1) + "|"]
    for label, row in shown.items():
        cells = [_standing(row[log], log, best) if log in row else "" for log in logs]
        lines.append(f"|{label}|{'|'.join(cells)}|")
    return lines


def _standing(row: dict[str, float], log: str, best: dict[tuple[str, str], float]) -> str:
    words = []
    for kind, digits in DIGITS.items():
        word = f"{row[kind]:.{digits}f}".removeprefix("0")
        words.append(f"**{word}**" if row[kind] == best[log, kind] else word)
    return " · ".join(words)


def seeds(result: dict[str, Any]) -> list[str]:
    """Figures of one model over its seeds, and the sampled ones of each seed."""
    lines = ["| candidates | HR@5 | NDCG@5 | HR@10 | NDCG@10 |", "|---|---|---|---|---|"]
    for kind, label in (("sampled", "positive + 99 negatives"), ("full", "full ranking")):
        means = [result["means"][f"{kind} {metric}"] for metric in METRICS]
        cells = [f"{m['mean']:.4f} ± {m['standard error over users']:.4f}" for m in means]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for run in result["runs"]:
        cells = [f"{run['metrics']['sampled'][metric]:.4f}" for metric in METRICS]
        lines.append(f"| seed {run['seed']}, sampled | " + " | ".join(cells) + " |")
    return lines


def updates(result: dict[str, Any]) -> list[str]:
    """Updates beside trainings from the start, for every log."""
    lines = [
        "| log | way | NDCG@10 | difference | of its NDCG@10 | CPU seconds | of its cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, log in result["updates"].items():
        for way, row in log["ways"].items():
            low, high = row["interval of the difference"]
            compared = way != "trained from the start"
            cells = [
                f"{row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" if compared else "",
                f"{row['share of trained from the start']:.1%}" if compared else "",
                f"{row['CPU seconds']:,.1f}",
                f"{row['share of the cost']:.2%}" if compared else "",
            ]
            lines.append(
                f"| {LOG_TITLES[name]} | {way} | {row['NDCG@10']:.4f} | {' | '.join(cells)} |"
            )
    return lines


def cold_items(result: dict[str, Any]) -> list[str]:
    """How well features place items that were left out of training."""
    lines = ["| features | area under the ROC curve |", "|---|---|"]
    for features, row in result["features"].items():
        low, high = row["interval"]
        lines.append(f"| {features} | {row['area']:.3f} [{low:.3f}, {high:.3f}] |")
    return lines


def approximate(result: dict[str, Any]) -> list[str]:
    """Two graphs of each set of vectors beside exact search."""
    lines = [
        "| vectors | graph | efSearch | recall@10 | in one call: index | exact | one by one: index "
        "| exact | build | index | vectors |",
        "|---" * 11 + "|",
    ]
    for name, of in result["approximate"].items():
        for graph, row in of["graphs"].items():
            ms = row["ms a user"]
            times = ("index", "exact", "index, one by one", "exact, one by one")
            cells = " | ".join(f"{ms[way]:.2f} ms" for way in times)
            lines.append(
                f"| {VECTOR_TITLES[name]}, {of['items']:,} × {of['width']} | {graph} "
                f"| {row['efSearch']:,} | {row['recall@10']:.3f} | {cells} "
                f"| {row['build seconds']:,.0f} s | {row['MiB']:,.0f} MiB "
                f"| {of['MiB of vectors']:,.0f} MiB |"
            )
    return lines


def service(result: dict[str, Any]) -> list[str]:
    """Load on the service: lists, a constant in their place, and lists while runs are swapped."""
    lines = ["| answers | requests a second | p50 | p99 |", "|---|---|---|---|"]
    ways = {
        "lists of ten": result["lists"],
        "a constant": result["constant"],
        "lists of ten, a swap every 5 s, each answer checked": result["swaps"],
    }
    for name, row in ways.items():
        rate = f"{row['requests_per_second']:,.0f}"
        lines.append(f"| {name} | {rate} | {row['p50_ms']:.0f} ms | {row['p99_ms']:.0f} ms |")
    return lines


def comparison(result: dict[str, Any]) -> list[str]:
    """The table of `comet-rec compare`, without its caption."""
    from comet_rec.experiments.compare import as_markdown

    return [line for line in as_markdown(result).splitlines() if line.startswith("|")]


def sequences(result: dict[str, Any]) -> list[str]:
    """Models of `runs/sequences.py`: means of the trainings, and the tests on the full ranking."""
    lines = [
        "| model | trainings | full HR@10 | full NDCG@10 | sampled HR@10 | sampled NDCG@10 "
        "| first model's lead in full NDCG@10 | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in result["models"]:
        errors = model["standard error over users"]
        cells = [
            f"{decimals(value)} ± {decimals(errors[name])}"
            for name, value in model["means"].items()
        ]
        tests = [value for key, value in model.items() if key.endswith("less this model")]
        lead, p = tested(tests[0]["full NDCG@10"]) if tests else ("", "")
        row = [model["model"], str(len(model["seeds"])), *cells, lead, p]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def tested(test: dict[str, Any]) -> tuple[str, str]:
    """Difference with its interval, and p value; without a test the latter is empty."""
    difference = f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
    if test["p"] is None:
        return difference, ""
    return difference, "< .001" if test["p"] < 1e-3 else decimals(test["p"], 3)


def steps(result: dict[str, Any]) -> list[str]:
    """Rows of `runs/steps.py`: figures, and what each row loses against the first."""
    lines = [
        "| COMET | full HR@10 | full NDCG@10 | less than `best` in NDCG@10 | p | sampled NDCG@10 |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        errors, means = row["standard error over users"], row["means"]
        names = ("full HR@10", "full NDCG@10", "sampled NDCG@10")
        hr, ndcg, sampled = (f"{decimals(means[n])} ± {decimals(errors[n])}" for n in names)
        tests = row.get("less than best")
        loss, p = tested(tests["full NDCG@10"]) if tests else ("", "")
        lines.append("| " + " | ".join([row["row"], hr, ndcg, loss, p, sampled]) + " |")
    return lines


def by_time(result: dict[str, Any]) -> list[str]:
    """Models on a split by time: full ranking, new users, and what the lists hold."""
    lines = [
        "| model | HR@10 | NDCG@10 | MRR@10 | new users' NDCG@10 | coverage@10 | mean popularity |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in result["models"]:
        full, more = model["full"], model["time_split"]
        new = more["groups"].get("new users", {}).get("full", {}).get("NDCG@10")
        cells = [decimals(full[name]) for name in ("HR@10", "NDCG@10", "MRR@10")]
        cells.append("" if new is None else decimals(new))
        cells += [decimals(more["coverage@10"], 3), f"{more['popularity@10']:,.0f}"]
        lines.append("| " + " | ".join([model["model"], *cells]) + " |")
    return lines


def all_checks() -> list[str]:
    """The checks of `comet_rec.testing`."""
    from comet_rec.testing.battery import CHECKS

    lines = ["| check | asks |", "|---|---|"]
    return lines + [f"| `{name}` | {function.__doc__} |" for name, function in CHECKS.items()]


def reliability() -> list[str]:
    """Promises with their tries and failures, from all records."""
    lines = [
        "| promise | tries | failures | remark | test, as a command | machine |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((RESULTS / "reliability").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        machine = record["machine"]
        for tried in record["tried"]:
            cells = (
                tried["promise"], f"{tried['tries']:,}", f"{len(tried['failures'])}",
                tried["note"],
                f"`{record['command'].partition(' --out')[0]}`",
                f"{machine['cpu']}, {machine['cores']} cores",
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def scale(part: str) -> list[str]:
    """A table of docs/scale.md, from the records under results/scale/."""
    return {
        "one": _one_process, "equal": _equal_processes, "memory": _divided_tables,
        "curves": _steps_of_processes, "paper": _on_paper, "tower": _towers,
    }[part]()  # fmt: skip


def _of_scale(name: str) -> dict[str, Any]:
    result = load(f"scale/{name}.json")
    assert result is not None, name
    return result


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    header, *body = (f"| {' | '.join(cells)} |" for cells in (columns, *rows))
    return [header, "|---" * len(columns) + "|", *body]


def _one_process() -> list[str]:
    """Medians of the runs on each log."""
    columns = (
        "rows", "users", "items", "read, split", "order of an epoch", "step", "a positive",
        "10,000 users ranked", "100,000 lists", "peak memory",
    )  # fmt: skip
    logs: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for name in ("rows", "items"):
        for run in _of_scale(name)["runs"]:
            logs.setdefault((run["rows"], run["users"], run["items"]), []).append(run)
    rows = [
        (
            *(f"{number:,}" for number in size),
            _seconds(runs, "read", "split"),
            f"{_middle(run['order_us_per_positive'] for run in runs):.2f} µs a positive",
            f"{_middle(run['step_ms'] for run in runs):,.0f} ms",
            f"{_middle(run['us_per_positive'] for run in runs):,.0f} µs",
            _seconds(runs, "evaluate") if runs[0].get("evaluated", 10_000) == 10_000 else "",
            _seconds(runs, "lists") if runs[0].get("listed", 100_000) == 100_000 else "",
            f"{max(run['peak_gb'] for run in runs):.1f} GB",
        )
        for size, runs in sorted(logs.items())
    ]
    return _table(columns, rows)


def _seconds(runs: list[dict[str, Any]], *phases: str) -> str:
    return f"{_middle(sum(run['seconds'][phase] for phase in phases) for run in runs):,.0f} s"


def _middle(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def _equal_processes() -> list[str]:
    columns = (
        "model", "tables", "processes", "largest difference of a loss, float64", "float32",
        "of a parameter, float64", "float32",
    )  # fmt: skip
    rows = []
    runs = {
        (x["model"], x["tables"], x["processes"], x["dtype"]): x
        for x in _of_scale("equal")["equal"]
    }
    for model, tables, processes, dtype in runs:
        if dtype == "float64":
            pair = [runs[model, tables, processes, kind] for kind in ("float64", "float32")]
            apart = [f"{x[key]:.0e}" for key in ("loss", "parameters") for x in pair]
            rows.append((model, tables, str(processes), *apart))
    return _table(columns, rows)


def _divided_tables() -> list[str]:
    rows = []
    for run in _of_scale("memory")["memory"]["runs"].values():
        kind = "dense Adam" if run["optimizer"] == "adam" else "by rows"
        peaks = ", ".join(f"{peak:.1f}" for peak in run["peak_gb"])
        rows.append((kind, str(run["processes"]), f"{peaks} GB", f"{run['ms']['step']:,.0f} ms"))
    return _table(("tables", "processes", "peak memory of each", "step"), rows)


def _steps_of_processes() -> list[str]:
    columns = (
        "rows of the table", "processes", "positives a second", "step, measured", "predicted",
        "off", "in communication", "predicted",
    )  # fmt: skip
    rows = [
        (
            f"{x['items']:,}", str(x["processes"]), f"{x['positives_per_second']:,}",
            f"{x['measured_ms']:,.0f} ms", f"{x['predicted_ms']:,.0f} ms", f"{x['off']:+.0%}",
            f"{x['communication']:.0%}", f"{x['predicted_communication']:.0%}",
        )
        for x in _of_scale("model")["compared"]
    ]  # fmt: skip
    return _table(columns, rows)


def _towers() -> list[str]:
    """Medians of COMET's steps."""
    rows = []
    runs = _of_scale("tower")["tower"]
    for count in sorted({run["processes"] for run in runs}):
        of_count = [run["ms"] for run in runs if run["processes"] == count]
        step = _middle(ms["step"] for ms in of_count)
        within = _middle((ms["communication"] + ms["wait"]) / ms["step"] for ms in of_count)
        rows.append((str(count), f"{step:,.0f} ms", f"{1024 / step * 1e3:,.0f}", f"{within:.0%}"))
    return _table(("processes", "step", "positives a second", "in communication"), rows)


def _on_paper() -> list[str]:
    columns = (
        "machines", "processes", "log on each machine", "tables on each machine", "step",
        "of it making the batch", "of it network", "epoch", "epoch if making were divided",
    )  # fmt: skip
    rows = [
        (
            str(x["machines"]), f"{x['processes']:,}", f"{x['log_gb']:,} GB",
            f"{x['tables_gb']:,} GB", f"{x['step_s']:.1f} s", f"{x['making_s']:.1f} s",
            f"{x['network_s']:.2f} s", f"{x['epoch_hours']:.1f} h",
            f"{x['without_making_hours']:.1f} h",
        )
        for x in _of_scale("model")["on_paper"]
    ]  # fmt: skip
    return _table(columns, rows)


def survivors(result: dict[str, Any]) -> list[str]:
    """Mutants that no test finds, with the reason of each."""
    lines = ["| function | reason | change |", "|---|---|---|"]
    for tried in result["tried"]:
        for each in sorted(tried["failures"], key=lambda each: each["function"]):
            change = each["change"].replace("|", "\\|")
            lines.append(f"| `{each['function']}` | {each['reason']} | `{change}` |")
    return lines


def battery(result: dict[str, Any]) -> list[str]:
    """Outcomes of `benchmarks/battery_peers.py`: counts, and the failed checks."""
    lines = [
        "| recommender | passed | not offered | failed | failed checks |",
        "|---|---|---|---|---|",
    ]
    for name, outcomes in result["battery"].items():
        failed = ", ".join(check.replace("_", " ") for check in outcomes["failed"])
        counts = (outcomes["passed"], len(outcomes["not offered"]), len(outcomes["failed"]))
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + f" | {failed} |")
    return lines


def decimals(value: float, places: int = 4) -> str:
    """A share without its leading zero."""
    return f"{value:.{places}f}".removeprefix("0")


_TABLE = re.compile(r"(<!-- table: (\S+?)(?: rows: (.+?))? -->\n\n)(?:\|.*\n)+")


def with_tables(text: str) -> str:
    """A page's text with the tables after its marks made anew.

    A mark is ``<!-- table: FILE -->`` or ``<!-- table: FILE rows: LABEL; LABEL -->``, FILE being
    one under results/, ``<!-- table: checks -->`` for the checks of `comet_rec.testing`, or
    ``<!-- table: reliability -->`` for the records under results/reliability/. ``scale/PART`` are
    tables of the records under results/scale/.
    """

    def table(found: re.Match[str]) -> str:
        if found[2] == "checks":
            return found[1] + "\n".join(all_checks()) + "\n"
        if found[2] == "reliability":
            return found[1] + "\n".join(reliability()) + "\n"
        if found[2].startswith("scale/"):
            return found[1] + "\n".join(scale(found[2].partition("/")[2])) + "\n"
        result = load(found[2])
        assert result is not None, found[2]
        if "tried" in result:
            lines = survivors(result)
        elif "battery" in result:
            lines = battery(result)
        elif "sections" in result:
            lines = standings(
                result["sections"]["beyond"], found[3].split("; ") if found[3] else ()
            )
        elif "runs" in result:
            lines = seeds(result)
        elif "updates" in result:
            lines = updates(result)
        elif "approximate" in result:
            lines = approximate(result)
        elif "share_of_constant" in result:
            lines = service(result)
        elif "features" in result:
            lines = cold_items(result)
        elif "trainings" in result:
            lines = by_time(result)
        elif "rows" in result:
            lines = steps(result)
        elif "seeds" in result["models"][0]:
            lines = sequences(result)
        else:
            lines = comparison(result)
        return found[1] + "\n".join(lines) + "\n"

    return _TABLE.sub(table, text)


WITH_TABLES = (
    "README.md",
    "docs/checks.md",
    "docs/reliability.md",
    "docs/mutants.md",
    "docs/export.md",
    "docs/results.md",
    "docs/scale.md",
    "docs/serving.md",
    "docs/updates.md",
)
"""Pages written by hand, but for their tables."""


def texts() -> dict[Path, str]:
    """What every file should hold."""
    pages = {ROOT / "docs" / name: page(name) for name in PAGES}
    by_hand = {
        ROOT / name: with_tables((ROOT / name).read_text(encoding="utf-8")) for name in WITH_TABLES
    }
    return {**pages, **by_hand}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    for path, text in texts().items():
        if not given.check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            name = path.relative_to(ROOT)
            sys.exit(f"{name} and results/ disagree: python docs/figures.py")


if __name__ == "__main__":
    main()
