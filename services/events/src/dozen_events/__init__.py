"""Shows an account the public events that concern it."""
