"""The use cases of the gateway: decisions, API keys, and the read models that decisions are made from."""
