"""Images: reads the text in images, and keeps a record of each analysis."""
