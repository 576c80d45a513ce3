"""Choose an encoder by name and run it: items to vectors, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.data.items import Items, read_items
from semid.errors import ArtifactError

if TYPE_CHECKING:
    from semid.encoders.lexical import LexicalEncoder
    from semid.encoders.neural import NeuralEncoder

    Encoder = LexicalEncoder | NeuralEncoder

__all__ = ["embed", "encoder_from_state", "make_encoder"]


def embed(
    items: Items | str | PathLike[str] | Iterable[Mapping[str, object]],
    encoder: str | PathLike[str] | Encoder = "lexical",
    **options: Any,
) -> npt.NDArray[np.float32]:
    """Return one vector per item, float32 [N, D]; of unit length by default.

    Parameters
    ----------
    items : Items, or a source
        Items, or a file or records that `read_items` reads; the vectors are in their order.
    encoder : str, path or encoder
        "lexical", a model's folder or Hub id, or an encoder. An encoder that was fitted before is used as it is. To
        keep one for later items, make it with `make_encoder` and call its `fit_transform` and `state`.
    **options
        Keywords of `LexicalEncoder` or `NeuralEncoder`; only together with a name.

    Raises
    ------
    TypeError
        Options were given together with an encoder.
    ConfigError, InputError
        As the encoder raises them.

    >>> embed([{"id": "a", "title": "red polish"}, {"id": "b", "title": "red kohl"}]).shape
    (2, 2)
    """
    items = items if isinstance(items, Items) else read_items(items)
    items.require_text()
    if isinstance(encoder, str | PathLike):
        return make_encoder(encoder, **options).fit_transform(items)
    if options:
        raise TypeError(f"{', '.join(options)}: options belong to an encoder's name, not to an encoder.")
    return encoder.transform(items) if encoder.is_fitted else encoder.fit_transform(items)


def make_encoder(encoder: str | PathLike[str] = "lexical", **options: Any) -> Encoder:
    """Return a new encoder by name.

    Parameters
    ----------
    encoder : str or path
        "lexical", or a model's folder or Hub id. `./lexical` is a folder.
    **options
        Keywords of `LexicalEncoder` or `NeuralEncoder`.

    >>> make_encoder("lexical", dim=8).is_fitted
    False
    """
    if encoder == "lexical":
        from semid.encoders.lexical import LexicalEncoder

        return LexicalEncoder(**options)
    from semid.encoders.neural import NeuralEncoder

    return NeuralEncoder(encoder, **options)


def encoder_from_state(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], **options: Any) -> Encoder:
    """Return the encoder that `encoder.state()` described, lexical or neural.

    Parameters
    ----------
    arrays, meta
        What `state()` returned.
    **options
        Keywords of `NeuralEncoder.from_state`.

    Raises
    ------
    ArtifactError
        Another kind of encoder, or arrays that do not fit together.
    """
    kind = meta.get("kind")
    if kind == "lexical":
        from semid.encoders.lexical import LexicalEncoder

        return LexicalEncoder.from_state(arrays, meta, **options)
    if kind == "neural":
        from semid.encoders.neural import NeuralEncoder

        return NeuralEncoder.from_state(arrays, meta, **options)
    raise ArtifactError(f"stored encoder: kind={kind!r} should be lexical or neural. Upgrade semid.")
