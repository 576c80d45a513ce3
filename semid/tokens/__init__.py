"""Codes to tokens and back."""
