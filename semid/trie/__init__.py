"""The prefix index over codes."""
