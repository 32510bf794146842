"""Reward models: one shared sequence-classification backbone, an adapter and a calibration per language."""
