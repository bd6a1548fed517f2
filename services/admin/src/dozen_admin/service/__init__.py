"""The use cases of the admin service."""
