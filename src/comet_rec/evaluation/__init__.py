"""Honest measurement: ranks with ties, sampled and full, with standard errors."""
