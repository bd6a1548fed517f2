"""How services run models: the client of an inference server, and models in this process."""
