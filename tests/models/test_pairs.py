"""Sparse pair products against the dense product, gradients included."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comet_rec.models.pairs import pair_products


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 20), st.integers(0, 10_000))
def test_values_and_gradients_equal_the_dense_product(users, items, pairs, seed):
    rng = torch.Generator().manual_seed(seed)
    left, right = (torch.rand(n, 3, generator=rng).requires_grad_() for n in (users, items))
    rows = torch.randint(0, users, (pairs,), generator=rng).sort().values
    columns = torch.randint(0, items, (pairs,), generator=rng)
    weights = torch.rand(pairs, generator=rng)
    found = []
    for products in (pair_products(left, right, rows, columns), (left @ right.T)[rows, columns]):
        (products * weights).sum().backward()
        found.append((products.detach(), left.grad, right.grad))
        left.grad = right.grad = None
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
