"""What the jobs service is about: pure rules, by noun."""
