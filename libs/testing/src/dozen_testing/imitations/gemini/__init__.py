"""Google's Gemini API, imitated after its published reference."""
