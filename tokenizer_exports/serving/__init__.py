"""Items in serving engines."""
