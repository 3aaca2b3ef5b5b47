"""Verification mode: fast computations are repeated by slow forms, and both results compared.

With the environment variable ``COMET_VERIFY=1``, each training step also computes its loss and its
gradients by slow forms: PyTorch's own convolution, attention and cross-entropy, pair by pair, one
row at a time. Full ranks are counted a list at a time, and lists from vectors are compared with all
scores, sorted. A difference that rounding does not explain raises a `VerificationError`.

With ``COMET_SLOW=1``, the slow forms alone are used, blocks have one row, and no thread prepares
anything. If a result is right with ``COMET_SLOW=1`` and wrong without, a fast form is at fault.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from comet_rec.errors import CometError

EXACT, EXACT_GRADIENT = 2e-3, 0.05
"""Allowed differences in float32, relative to the length of the vector of all values.

Where a ReLU has an input of zero but for rounding, correct gradients may differ in a few rows.
"""
ROUNDED_LOSS, ROUNDED_GRADIENT = 0.02, 0.2
"""The same with bfloat16 products, whose factors have eight bits.

A gradient is a sum of terms that cancel, so its relative error is larger than that of the loss.
"""

ZERO = 1e-6
"""Allowed difference of a value that is zero but for rounding.

An example is the gradient of a bias in which the errors of a batch cancel.
"""


class _Thread(threading.local):
    """Number of `slow_forms` blocks that the present thread is in."""

    depth = 0


_thread = _Thread()


class VerificationError(CometError):
    """A fast and a slow form of the same computation differ."""


def slow() -> bool:
    """Whether slow forms are used in place of fast ones."""
    return _thread.depth > 0 or os.environ.get("COMET_SLOW", "") not in ("", "0")


def verifying() -> bool:
    """Whether fast results are compared with slow ones."""
    return os.environ.get("COMET_VERIFY", "") not in ("", "0") and not slow()


@contextlib.contextmanager
def slow_forms() -> Iterator[None]:
    """Use slow forms inside the ``with`` block, in this thread."""
    _thread.depth += 1
    try:
        yield
    finally:
        _thread.depth -= 1


def assert_close(name: str, fast: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    """Raise a `VerificationError` if two results differ by more than rounding.

    The length of the difference is compared with the length of the result, because single
    values near zero have no relative precision.
    """
    fast, expected = fast.detach().double(), expected.detach().double()
    difference = float(torch.linalg.vector_norm(fast - expected))
    length = float(torch.linalg.vector_norm(expected))
    if not difference <= tolerance * length + ZERO * expected.numel() ** 0.5:
        raise VerificationError(
            f"{name}: the fast result differs from the slow one by {difference:.3g}, "
            f"of {length:.3g}"
        )


def assert_equal(name: str, fast: object, expected: object) -> None:
    """Raise a `VerificationError` if two results, such as ranks, are not equal."""
    if fast != expected:
        raise VerificationError(f"{name}: {fast} by the fast form, {expected} by the slow one")
