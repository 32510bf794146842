"""Reward models learned from preference pairs: training, measuring, comparing, and the shelf of their versions."""
