"""The use cases of the jobs service, by noun."""
