"""All SQL of the gateway."""
