"""Verification mode: fast computations are repeated by slow forms, and both results compared.

With the environment variable ``COMET_VERIFY=1``, each training step also computes its loss and its
gradients by slow forms: PyTorch's own convolution, attention and cross-entropy, pair by pair, one
row at a time. Ranks are counted a row at a time, and lists are sorted whole. A difference that
rounding does not explain raises a `VerificationError`.

With ``COMET_SLOW=1``, the slow forms alone are used, in one thread, and no batch is made in
advance. If a result is right with ``COMET_SLOW=1`` and wrong without, the fault is in a fast form.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from comet_rec.errors import CometError

EXACT, ROUNDED = 2e-3, 0.2
"""Allowed difference, relative to the length of a vector, in float32 and with bfloat16 products."""

_depth = 0  # of `slow_forms` blocks; one number for all threads, as they serve one training


class VerificationError(CometError):
    """A fast and a slow form of the same computation differ."""


def slow() -> bool:
    """Whether slow forms are used in place of fast ones."""
    return _depth > 0 or os.environ.get("COMET_SLOW", "") not in ("", "0")


def verifying() -> bool:
    """Whether fast results are compared with slow ones."""
    return os.environ.get("COMET_VERIFY", "") not in ("", "0") and not slow()


@contextlib.contextmanager
def slow_forms() -> Iterator[None]:
    """Use slow forms inside the ``with`` block."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def assert_close(name: str, fast: Tensor, slowly: Tensor, tolerance: float = EXACT) -> None:
    """Raise a `VerificationError` if two results differ by more than rounding.

    The length of the difference is compared with the length of the result, because single
    values near zero have no relative precision.
    """
    fast, slowly = fast.detach().double(), slowly.detach().double()
    difference = float(torch.linalg.vector_norm(fast - slowly))
    length = float(torch.linalg.vector_norm(slowly))
    if not difference <= tolerance * length + 1e-6 * slowly.numel() ** 0.5:
        raise VerificationError(
            f"{name}: the fast result differs from the slow one by {difference:.3g}, "
            f"of {length:.3g}"
        )


def assert_equal(name: str, fast: object, slowly: object) -> None:
    """Raise a `VerificationError` if two results, such as ranks, are not equal."""
    if fast != slowly:
        raise VerificationError(f"{name}: {fast} by the fast form, {slowly} by the slow one")
