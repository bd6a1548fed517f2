"""Shows the staff what happens on the platform, from its own read model."""
