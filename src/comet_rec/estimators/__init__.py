"""Estimators, the public interface: fit, recommend, evaluate, save."""
