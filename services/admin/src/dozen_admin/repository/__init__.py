"""All SQL of the admin service."""
