"""Accepts tasks, queues them and keeps their state and results."""
