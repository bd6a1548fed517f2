"""What the staff sees, and the rules for signing in, by noun."""
