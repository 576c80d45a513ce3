"""Vectors in; codebooks out."""
