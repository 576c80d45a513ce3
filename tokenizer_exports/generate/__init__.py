"""Language models that generate items, and nothing but items."""
