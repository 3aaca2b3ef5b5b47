"""Metrics and their uncertainty: ranks with ties, paired tests, reliability, the audit."""
