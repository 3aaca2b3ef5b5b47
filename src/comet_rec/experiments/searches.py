"""What a search for settings tried: the section of a report that shows its journals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from comet_rec.experiments.cells import number
from comet_rec.experiments.journal import Trial, history
from comet_rec.experiments.sections import Drawing, Section, Table

OF = "validation NDCG@10"


def searches(journals: Sequence[Path], used: Mapping[str, Sequence[str]]) -> Section:
    """A table of each journal's models, and how their best trial rose with the time spent.

    Parameters
    ----------
    journals : list of Path
    used : mapping
        Title of a log → its models whose settings come out of these journals.

    Raises
    ------
    ConfigError
        For a file that is no journal, or without Optuna.
    """
    section = Section("searches", "Searches for settings")
    section.text.append(
        f"Each model's best {OF}, among sampled items where nothing else is said, over the seconds "
        "spent on trials; the test items were never looked at. A trial behind the median of those "
        "before it was stopped early; one that time ran out for counts with its best epoch so far "
        "(cut; journals from before 2026-11-27 do not tell, there the last trial of a model may be "
        "one). What is best among sampled items need not be so over the whole catalogue: (full) "
        "means that a search looked there."
    )
    section.text += [
        f"{title}: in the tables of algorithms {', '.join(models)} have the best settings found."
        for title, models in used.items()
        if models
    ]
    for journal in journals:
        columns = ["model", "trials", "stopped early", "cut", "seconds", OF, "settings"]
        table = Table(journal.name, columns, [])
        rising: dict[str, list[list[float]]] = {}
        for search in history(journal):
            model, trials, best = search.model, search.trials, search.best
            if best is None:
                table.rows.append([model, "0", "0", "0", "", "", "no trial finished"])
                continue
            whole = {**search.begun.get("fixed", {}), **best.settings}
            settings = ", ".join(f"{key} = {value}" for key, value in whole.items())
            stopped, cut = sum(t.stopped_early for t in trials), sum(t.cut for t in trials)
            spent = sum(trial.seconds for trial in trials)
            full = search.select_by == "full"
            value = f"{best.value:.4f} (full)" if full else number(best.value)
            row = [model, len(trials), stopped, cut, f"{spent:,.0f}", value, settings]
            table.rows.append([str(cell) for cell in row])
            rising[f"{model} (full)" if full else model] = _best_so_far(trials)
        section.tables.append(table)
        caption = f"Best {OF} over the seconds of the search, {journal.name}"
        drawn = {"models": rising, "x": "seconds of trials", "y": OF}
        stem = re.sub(r"[^\w.-]", "-", journal.stem)  # a part of files' names, and of a link
        name = f"searches-{len(section.drawings) + 1}-{stem}"
        section.data[name] = rising
        section.drawings.append(Drawing(name, "steps", caption, drawn))
    return section


def _best_so_far(trials: Sequence[Trial]) -> list[list[float]]:
    spent, best, points = 0.0, 0.0, []
    for trial in trials:
        spent += trial.seconds
        best = max(best, trial.value)
        points.append([round(spent, 1), best])
    return points
