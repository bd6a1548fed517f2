"""The errors of the jobs service, by noun."""
