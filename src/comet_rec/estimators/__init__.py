"""Estimators, the public interface: train, recommend, evaluate, save and load models."""
