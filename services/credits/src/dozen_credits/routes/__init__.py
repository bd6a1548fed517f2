"""HTTP routes of the credits service."""
