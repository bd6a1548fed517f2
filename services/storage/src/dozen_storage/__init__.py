"""Keeps files: their metadata in its database, their bytes in an object store."""
