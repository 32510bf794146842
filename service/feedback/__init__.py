"""Feedback on replies: taken, kept, and turned into preference pairs."""
