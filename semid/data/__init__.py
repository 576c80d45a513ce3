"""Files and Python objects in; items and interactions out."""
