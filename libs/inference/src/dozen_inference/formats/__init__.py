"""The formats that upstreams speak, each translated from and to OpenAI's chat completions: pure code."""
