"""The use cases of the chat service."""
