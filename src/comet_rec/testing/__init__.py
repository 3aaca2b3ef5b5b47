"""Checks that every recommender should pass: `check_recommender` and `checks`."""

from comet_rec.testing.battery import check_recommender as check_recommender
from comet_rec.testing.battery import checks as checks

__all__ = ["check_recommender", "checks"]
