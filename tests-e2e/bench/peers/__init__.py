"""Other proxies: one module each, with what installs and runs it."""
