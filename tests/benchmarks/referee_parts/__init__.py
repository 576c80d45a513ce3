"""What the referee is made of.

Files in reading order:

split        which items are training data, and the cases of validation and test
tables       tables of IDs: from artifacts, index files, or made on the spot
recommender  the small generative model that speaks a table's IDs, and how it learns
baselines    recommenders without a model: popularity, co-occurrence, item-kNN, EASE
results      one line of JSON for each run, and the table of all
"""
