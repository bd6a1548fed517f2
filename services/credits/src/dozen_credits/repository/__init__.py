"""All SQL of the credits service."""
