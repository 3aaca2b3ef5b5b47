"""Moving average of a model's parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class Averaged:
    """Exponential moving average of a model's parameters that are trained.

    Its decay grows as (1 + t) / (10 + t) up to `decay`, so that the first steps, which are far
    from anything good, are soon forgotten.

    Parameters
    ----------
    model : nn.Module
    decay : float
        In (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
        self.decay = decay
        self.values = {k: p.detach().clone() for k, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values = list(self.values.values())
        torch._foreach_lerp_(values, [p.data for p in self.parameters.values()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's parameters and their average."""
        for name, parameter in self.parameters.items():
            parameter.data, self.values[name] = self.values[name], parameter.data

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the average for a while."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
