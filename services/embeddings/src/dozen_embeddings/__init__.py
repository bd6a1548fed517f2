"""Embeddings: turns text into vectors, and remembers the vectors by the hash of their text."""
