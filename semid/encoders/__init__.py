"""Items to vectors: `embed`, and the encoders behind it, loaded when they are asked for.

lexical.py    TF-IDF and SVD, the default: nothing to download
neural.py     sentence-transformers, or any language model with pooling
vectors.py    vectors that the user brings
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from semid.data.items import Items
    from semid.encoders.lexical import LexicalEncoder
    from semid.encoders.neural import NeuralEncoder
    from semid.encoders.vectors import VectorFile, read_vectors

__all__ = [
    "LexicalEncoder",
    "NeuralEncoder",
    "VectorFile",
    "embed",
    "encoder_from_state",
    "make_encoder",
    "read_vectors",
]

HOMES = {
    "LexicalEncoder": "semid.encoders.lexical",
    "NeuralEncoder": "semid.encoders.neural",
    "VectorFile": "semid.encoders.vectors",
    "read_vectors": "semid.encoders.vectors",
}


def embed(
    items: Items,
    encoder: str | Path | LexicalEncoder | NeuralEncoder = "lexical",
    *,
    progress: bool = False,
    **options,
) -> npt.NDArray[np.float32]:
    """Vectors of items, float32 [N, D], rows of unit length by default.

    Parameters
    ----------
    encoder : "lexical", a model's folder or hub id, or an encoder
        An encoder that was fitted before is used as it is; to keep one for later items, make it with
        `make_encoder` and call `fit_transform` and `state` on it.
    options
        Keywords of `LexicalEncoder` or `NeuralEncoder`.

    >>> from semid.data.items import Items
    >>> embed(Items(["a", "b"], {"title": ["red polish", "red kohl"]})).shape
    (2, 2)
    """
    if isinstance(encoder, str) or hasattr(encoder, "__fspath__"):
        return make_encoder(encoder, **options).fit_transform(items, progress=progress)
    if options:
        raise TypeError(f"{', '.join(options)}: options belong to an encoder's name, not to an encoder.")
    return (encoder.transform if encoder.is_fitted else encoder.fit_transform)(items, progress=progress)


def make_encoder(encoder: str | Path = "lexical", **options) -> LexicalEncoder | NeuralEncoder:
    """An encoder by name: "lexical", or a model's folder or hub id. `./lexical` is a folder."""
    if encoder == "lexical":
        from semid.encoders.lexical import LexicalEncoder

        return LexicalEncoder(**options)
    from semid.encoders.neural import NeuralEncoder

    return NeuralEncoder(encoder, **options)


def encoder_from_state(arrays: Mapping[str, np.ndarray], meta: dict, **options) -> LexicalEncoder | NeuralEncoder:
    """The encoder that `encoder.state()` described, of either kind; ArtifactError for another kind."""
    kind = meta.get("kind")
    if kind not in ("lexical", "neural"):
        raise ArtifactError(f"stored encoder: kind={kind!r} should be lexical or neural. Upgrade semid.")
    home = import_module(f"semid.encoders.{kind}")
    cls = home.LexicalEncoder if kind == "lexical" else home.NeuralEncoder
    return cls.from_state(arrays, meta, **options)


def __getattr__(name: str) -> object:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
