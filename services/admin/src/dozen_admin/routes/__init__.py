"""HTTP routes of the admin service."""
