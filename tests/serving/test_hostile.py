"""Attacks on the service: only declared statuses, no traceback, nothing personal in the log."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from comet_rec.serving import forms


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (forms.UsersRequest, {"user_ids": [[]] * 1_000}),
        (forms.UsersRequest, {"user_ids": [1], "allow": [[]] * 10_000}),
        (forms.UsersRequest, {"user_ids": [1]} | dict.fromkeys(map(str, range(50_000)))),
        (forms.HistoriesRequest, {"histories": [[[]] * 1_000] * 300}),
        (forms.SimilarRequest, {"item_ids": [None] * 100}),
        (forms.ExplainRequest, {"item_ids": [None] * 20, "history": [None] * 1_000}),
        (forms.EventsRequest, {"events": [dict.fromkeys(map(str, range(19)))] * 1_000}),
    ],
)
def test_a_body_of_many_wrong_values_makes_few_errors(form, body):
    """Each error costs memory and time of the event loop, on which everything waits."""
    with pytest.raises(ValidationError) as caught:
        form.model_validate(body)
    assert caught.value.error_count() < 25
