"""The whole platform on one machine: PostgreSQL, NATS, a model server and the twelve services."""
