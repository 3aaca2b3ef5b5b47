"""Numbers that are not finite, metrics against other code, and statistics against SciPy.

    python -m tests.reliability.numbers --out results/reliability/numbers.json

- A NaN or an infinity is put into a parameter, a gradient or a moment of the optimizer at a random
  step of a training. The training must stop by the end of the epoch, and name a step and a tensor;
  the best state so far must be finite.
- HR and NDCG of random score matrices with ties equal torchmetrics' mean over random orders of the
  tied items where it can be had, and a loop over all candidates.
- Wilcoxon's test, the t-test over trainings and Holm's correction equal SciPy's figures or the
  definition.
- p-values of models that do not differ are uniform (Kolmogorov and Smirnov).
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from scipy import stats
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_normalized_dcg

from comet_rec.data.batches import Batches
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import leave_one_out
from comet_rec.errors import NonFiniteError
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.evaluation.metrics import hit_rate, ndcg
from comet_rec.evaluation.paired import Noise, holm, over_trainings, paired
from comet_rec.models import base
from comet_rec.random import generator
from comet_rec.training.trainer import Progress, Trainer
from tests.conftest import checkerboard_log
from tests.models.test_contract import NEURAL, SMALL
from tests.reliability.recorded import Tried, program

EPOCHS = 3
NAMED = re.compile(r"epoch \d+, batch \d+: [a-z_.0-9 ]+ is not finite")


def injected(name: str, log: Interactions, rng: np.random.Generator) -> str | None:
    """Put a bad number into a random place of a training; what goes wrong, None for nothing."""
    config = ESTIMATORS[name](
        **SMALL.get(name, {}), preset="static", epochs=EPOCHS, batch_size=128
    ).config_for(log)
    model = base.build(name, config.model, log.n_users, log.n_items, 0)
    batches = Batches(
        log, batch_size=128, negatives=2, histories=model.histories, seed=0,
        softmax_items=0 if config.train.loss == "softmax" else None,
    )  # fmt: skip
    parameters = dict(model.named_parameters())
    key = str(rng.choice(sorted(parameters)))
    kind = str(rng.choice(["parameter", "gradient", "moment"]))
    number = float(rng.choice([np.nan, np.inf, -np.inf]))
    # A gradient or a moment acts on the step after the one that is reported.
    at = int(rng.integers(1, EPOCHS * len(batches) + (kind == "parameter")))
    where = f"{name}, {kind} of {key}, {number}, step {at}"
    steps = 0

    def spoil(progress: Progress) -> None:
        nonlocal steps
        steps += not progress.finished_epoch
        if steps != at or progress.finished_epoch:
            return
        parameter = parameters[key]
        place = int(rng.integers(parameter.numel()))
        if kind == "gradient":  # of the next step
            parameter.register_hook(lambda grad: grad.flatten().index_fill(
                0, torch.tensor([place]), number).view_as(grad))  # fmt: skip
        elif kind == "moment":
            state = looping.optimizer.state[parameter]
            state[str(rng.choice(["exp_avg", "exp_avg_sq"]))].view(-1)[place] = number
        else:
            parameter.data.view(-1)[place] = number

    def validate() -> dict[str, float]:
        """Figures that rise from epoch to epoch, so each epoch is the best so far."""
        return {name: float(steps) for name in ("HR@10", "NDCG@10")}

    looping = Trainer(
        model, batches, config.train, seed=0, device=torch.device("cpu"), report=spoil,
        validate=validate,
    )  # fmt: skip
    try:
        looping.run()
    except NonFiniteError as error:
        if not NAMED.search(str(error)):
            return f"{where}: {error}"
        best = looping.state.best or {}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in best.values()):
            return f"{where}: the best state is not finite"
        return None
    if all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        return f"{where}: never noticed, though the parameters are finite"
    return f"{where}: never noticed, and the parameters are not finite"


def metrics_differ(rng: np.random.Generator) -> str | None:
    """Metrics of a random row of scores, once with ties, beside other code."""
    count, k = int(rng.integers(2, 120)), int(rng.integers(1, 15))
    scores = rng.integers(0, rng.integers(1, 40), size=count).astype(np.float32)
    positive_score = scores[0]
    better, tied = (
        np.array([(scores[1:] > positive_score).sum()]),
        np.array([(scores[1:] == positive_score).sum()]),
    )
    # The chance of each rank is equal among tied items: the mean over all of them, by a loop.
    ranks = [int(better[0]) + 1 + place for place in range(int(tied[0]) + 1)]
    hits = float(np.mean([rank <= k for rank in ranks]))
    gains = float(np.mean([1 / math.log2(rank + 1) if rank <= k else 0 for rank in ranks]))
    found = float(hit_rate(better, tied, k)[0]), float(ndcg(better, tied, k)[0])
    if not np.allclose(found, (hits, gains), atol=1e-12):
        return f"{found} and {(hits, gains)} by a loop, {count} candidates, k = {k}"
    # torchmetrics orders ties as it likes: break them, which moves the positive to each rank once.
    apart = []
    for rank in ranks:
        order = np.argsort(-scores[1:], kind="stable")
        place = np.insert(order + 1, rank - 1, 0)  # candidates from first to last
        untied = np.empty(count, dtype=np.float32)
        untied[place] = np.arange(count, 0, -1)
        target = torch.zeros(count, dtype=torch.bool)
        target[0] = True
        values = torch.from_numpy(untied), target
        apart.append(
            (float(retrieval_hit_rate(*values, top_k=k)),
             float(retrieval_normalized_dcg(*values, top_k=k)))
        )  # fmt: skip
    theirs = np.mean(apart, axis=0)
    if not np.allclose(found, theirs, atol=1e-6):
        return f"{found} and {theirs} of torchmetrics, {count} candidates, k = {k}"
    return None


def statistics_differ(rng: np.random.Generator) -> str | None:
    """Tests on random users beside SciPy and the definitions."""
    users = int(rng.integers(20, 400))
    values, reference = rng.integers(0, 2, (2, users)) * rng.random((2, users)).round(2)
    ours = paired(values, reference)
    theirs = stats.wilcoxon(values - reference, zero_method="pratt", method="approx").pvalue
    if not math.isclose(ours.wilcoxon, theirs, rel_tol=1e-9):
        return f"Wilcoxon {ours.wilcoxon} and {theirs}"
    one = over_trainings(values[None], reference[None], (Noise(0.0, math.inf),) * 2)
    t = stats.ttest_rel(values, reference)
    if not math.isclose(one.p or 0.0, float(t.pvalue), rel_tol=1e-9):
        return f"t-test {one.p} and {t.pvalue}"
    interval = t.confidence_interval()
    if not np.allclose((one.low, one.high), (interval.low, interval.high), rtol=1e-9):
        return f"interval {one.low}, {one.high} and {interval}"
    p_values = rng.random(int(rng.integers(1, 9))).tolist()
    wanted = [
        min(
            1.0,
            max((len(p_values) - rank) * q for rank, q in enumerate(sorted(p_values)) if q <= p),
        )
        for p in p_values
    ]
    if not np.allclose(holm(p_values), wanted, rtol=1e-12):
        return f"Holm {holm(p_values)} and {wanted} of {p_values}"
    return None


def null_p_values(rng: np.random.Generator, tries: int) -> tuple[float, int]:
    """p of Kolmogorov and Smirnov for Wilcoxon's p-values of models that do not differ."""
    found = []
    for _ in range(tries):
        a, b = rng.random((2, 200))
        found.append(paired(a, b).wilcoxon)
    return float(stats.kstest(found, "uniform").pvalue), len(found)


def run_numbers(tries: int, seed: int) -> list[Tried]:
    """All four promises; `tries` score matrices, and shares of it of the others."""
    rng = generator(seed, "tests.numbers")
    log = leave_one_out(checkerboard_log(), negatives=20).train
    bad = Tried("A NaN or infinity in a training stops it by the end of the epoch.")
    for number in range(max(len(NEURAL), tries // 20)):
        bad.add(injected(NEURAL[number % len(NEURAL)], log, rng))
    bad.note = "in parameters, gradients and moments of all trained models"
    same = Tried("HR and NDCG with ties equal torchmetrics and a loop.")
    for _ in range(tries):
        same.add(metrics_differ(rng))
    tests = Tried("Paired tests, intervals and Holm's correction equal SciPy and the definition.")
    for _ in range(max(10, tries // 10)):
        tests.add(statistics_differ(rng))
    null = Tried("p-values of models that do not differ are uniform.")
    p, count = null_p_values(rng, max(100, tries // 2))
    null.tries = count
    null.note = f"Kolmogorov and Smirnov: p = {p:.2f}"
    if p < 1e-6:
        null.failures.append(null.note)
    return [bad, same, tests, null]


if __name__ == "__main__":
    program("tests.reliability.numbers", run_numbers, tries=1000)
