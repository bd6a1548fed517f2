"""The errors of the credits service."""
