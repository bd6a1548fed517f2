"""Keeps accounts, their ledger and their usage, and charges every request once."""
