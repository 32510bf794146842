"""Judges of replies: rules, language fidelity, reward models, and the panel that routes by language."""
