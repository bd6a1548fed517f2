"""Keeps the catalogue of models, their prices and deployments, and watches their health."""
