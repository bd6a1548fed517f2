"""The seed file, and the bodies of the models API."""
