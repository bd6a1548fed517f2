"""Gateways and credits played through on a bad network, in virtual time, from one seed."""
