"""The rules of the credits service."""
