"""Precision of matrix products in training: PyTorch's setting, and products of bfloat16 numbers.

With the precision "medium", PyTorch may round the factors of a float32 product to bfloat16. It
does so again for each product. Code that multiplies a large matrix more than once keeps it in
`product_dtype` instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from comet_rec.errors import ConfigError


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set PyTorch's precision of float32 matrix products inside the ``with`` block.

    PyTorch's setting is process-wide, so the old value is restored at the end. If the caller has
    set a precision for each backend, PyTorch refuses this older setting. Then "highest" changes
    nothing.

    Raises
    ------
    ConfigError
        For another precision than "highest", if the caller has set a precision for each backend.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        if precision != "highest":
            raise ConfigError(
                f'train.matmul_precision = "{precision}": torch.backends…fp32_precision is set '
                "in this process; leave out one of the two"
            ) from None
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_dtype(like: Tensor) -> torch.dtype:
    """The dtype in which to keep matrices like `like` that are multiplied more than once.

    It is bfloat16 where the precision is "medium" and the CPU multiplies bfloat16 numbers itself.
    Otherwise it is the dtype of `like`.
    """
    if like.dtype != torch.float32 or like.device.type != "cpu":
        return like.dtype
    try:
        medium = torch.get_float32_matmul_precision() == "medium"
    except RuntimeError:  # the caller has set a precision for each backend
        medium = False
    return torch.bfloat16 if medium and _cpu_has_bfloat16() else like.dtype


@cache
def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16 numbers."""
    try:
        return bool(torch.cpu._is_avx512_bf16_supported())
    except AttributeError:  # not a public name
        return False
