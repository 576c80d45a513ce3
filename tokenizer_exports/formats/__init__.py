"""Other systems' files, read and written."""
