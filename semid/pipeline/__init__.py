"""One verb, one file: fit, add, update, refit, and the steps that they are made of."""
