"""Anthropic's Messages API, imitated after its published reference."""
