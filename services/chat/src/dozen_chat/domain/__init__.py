"""What the chat service is about: pure rules, by noun."""
