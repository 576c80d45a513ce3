"""The verbs, a file each, and the steps that they share, in reading order.

fit.py              semid fit: read -> embed -> learn -> encode -> assign -> judge
read.py             a source -> its items, sorted by id
embed.py            items -> vectors, by an encoder that is fitted here, a model, or ready ones
signals.py          training signals besides the text: interactions, and a language model's embeddings
learn.py            vectors -> codebooks, on a device and in memory that suffice
encode.py           vectors -> codes, block by block
provenance.py       judge the IDs, note how they were made, put the state together
add.py              semid add: new items get the nearest free IDs
update.py           add and retire in a folder, under its lock
refit.py            semid refit: fit again for a changed catalog
relearn.py          its learning half: codes keep the meaning of the old ones
batch_encoder.py    codes and tokens of one batch, for datasets, Ray and Spark
dataset_encoder.py  semid encode --items: a whole data set
ray_engine.py       the same on Ray

Files bear the names of verbs, so import from the file: `from semid.pipeline.fit import fit`.
"""
