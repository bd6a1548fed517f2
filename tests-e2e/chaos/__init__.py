"""The kill loop: parts of the platform are killed at random under load, and then the books must balance."""
