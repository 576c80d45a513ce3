"""Training data that teaches a language model what semantic IDs mean.

config       every choice; tasks, formats, chances drawn from a seed
templates    the wordings, a TOML or JSON file that users can edit
times        when each interaction was
split        which interactions are for training, and which are held out
negatives    items that a user did not meet
catalog    titles and descriptions
given        users' tokens, queries and preference texts from files
tasks        histories and texts -> cases of each task
files        records -> lines of JSON, the layout that trainers read
write        all of it: `write_alignment`
"""
