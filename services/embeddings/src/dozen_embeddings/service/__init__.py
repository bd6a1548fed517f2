"""The use cases of the embeddings service."""
