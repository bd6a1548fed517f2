"""HTTP routes of the chat service."""
