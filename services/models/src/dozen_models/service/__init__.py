"""The use cases of the models service."""
