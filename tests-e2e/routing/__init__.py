"""Gateways send conversations to inference servers with prefix caches, in virtual time, from a seed."""
