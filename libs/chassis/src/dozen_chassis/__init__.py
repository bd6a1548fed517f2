"""The chassis: what every service needs to run, and nothing that any of them is about."""
