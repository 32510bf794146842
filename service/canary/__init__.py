"""A published policy on a share of the live traffic: compared with the one that serves, then promoted or taken back."""
