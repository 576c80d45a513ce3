"""Items, users or interactions in; vectors out.

choose.py               embed, make_encoder: an encoder by its name
lexical.py              TF-IDF and SVD, the default: nothing to download
tfidf.py                words, counts and components for it
neural.py               sentence-transformers, or any language model with pooling
language_models.py      loading such a model and running a batch of texts
vectors.py              vectors that the user brings, checked
vector_rows.py          what their formats share; vector_files.py opens a file or folder of any of them:
vector_tables.py        Parquet, Arrow and Feather; vector_text.py CSV and word2vec; vector_json.py JSON
collaborative.py        vectors of users and items from interactions: random walks
skip_gram.py            the training loop over the walks
collaborative_files.py  such vectors made elsewhere
checkpoint.py           which tensors of a language model hold one row per token
input_embeddings.py     mean input embeddings of texts
"""

from semid.encoders.choose import embed, encoder_from_state, make_encoder
from semid.encoders.collaborative import BehaviorVectors, WalkConfig, learn_behavior
from semid.encoders.input_embeddings import mean_text_rows
from semid.encoders.lexical import LexicalEncoder
from semid.encoders.neural import NeuralEncoder
from semid.encoders.vectors import VectorFile, read_vectors

__all__ = [
    "BehaviorVectors",
    "LexicalEncoder",
    "NeuralEncoder",
    "VectorFile",
    "WalkConfig",
    "embed",
    "encoder_from_state",
    "learn_behavior",
    "make_encoder",
    "mean_text_rows",
    "read_vectors",
]
