"""The services on a real vLLM, which runs on the CPU from an environment of its own (`scripts/vllm`)."""
