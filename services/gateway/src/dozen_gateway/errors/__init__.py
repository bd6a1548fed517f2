"""The errors of the gateway."""
