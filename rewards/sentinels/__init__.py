"""Reward hacks, planted on purpose, and what the panel makes of them beside honest replies."""
