"""Bodies of the credits API."""
