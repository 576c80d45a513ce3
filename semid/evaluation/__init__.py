"""Codes in; figures, and sentences about them, out."""
