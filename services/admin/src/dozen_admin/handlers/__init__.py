"""JetStream handlers of the admin service, by noun."""
