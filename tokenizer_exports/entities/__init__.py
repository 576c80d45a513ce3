"""A token for every user and item."""
