"""Models, their prices and their health, and the rules by which these change."""
