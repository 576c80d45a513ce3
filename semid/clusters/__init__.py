"""Tokens for groups of users and items."""
