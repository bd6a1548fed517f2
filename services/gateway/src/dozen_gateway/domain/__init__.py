"""What the gateway knows, and the decision that follows from it."""
