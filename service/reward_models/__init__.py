"""Reward models of a running node: trained in a process of their own, kept on a shelf, activated and rolled back."""
