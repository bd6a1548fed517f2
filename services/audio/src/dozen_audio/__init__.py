"""Audio: turns speech into text and text into speech, and keeps a record of both."""
