"""The table of items and their IDs, which is only appended to."""
