"""Parts of a batch in threads: the same numbers, PyTorch's own settings left as they were."""

from __future__ import annotations

import threading

import pytest
import torch

from comet_rec.parallel import in_parts


def test_parts_cover_the_range_in_order(two_threads):
    assert in_parts(10, 4, lambda part: (part.start, part.stop)) == [(0, 5), (5, 10)]
    assert in_parts(7, 4, lambda part: (part.start, part.stop)) == [(0, 7)]
    assert in_parts(0, 4, lambda part: (part.start, part.stop)) == [(0, 0)]


def test_each_part_has_a_thread_that_does_not_divide_its_work(two_threads):
    found = in_parts(8, 1, lambda _: (torch.get_num_threads(), torch.is_grad_enabled()))
    assert found == [(1, False), (1, False)]
    assert torch.get_num_threads() == 2
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [2]


def test_errors_reach_the_caller(two_threads):
    def fail(part: slice) -> None:
        raise ValueError(f"at {part.start}")

    with pytest.raises(ValueError, match="at 0"):
        in_parts(8, 1, fail)
