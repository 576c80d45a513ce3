"""Arrays to a folder and back."""
