"""The use cases of the credits service."""
