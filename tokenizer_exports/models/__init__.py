"""New tokens and rows in language models."""
