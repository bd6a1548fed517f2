"""Answers chat completions through an inference server, and reports what they used."""
