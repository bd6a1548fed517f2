"""Decides on every request: who asks, what it may cost and where it goes."""
