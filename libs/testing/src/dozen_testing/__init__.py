"""Real servers for tests: PostgreSQL, NATS, gRPC and HTTP."""
