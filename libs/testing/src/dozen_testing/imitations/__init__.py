"""Providers' APIs, imitated on this machine: they refuse what the real ones refuse."""
