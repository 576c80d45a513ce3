"""NeuralEncoder: text to vectors with a sentence-transformers model or any Hugging Face language model.

A model is a folder or a hub id; only safetensors weights are read, and no code from the model's folder runs.
A model that describes its own pooling (a `modules.json`) is run by sentence-transformers; any other by
transformers' `AutoModel`, and the hidden states of its last layer are pooled here:

- mean: over all tokens of the text, padding excluded
- last: the state of the last token, the only one of a causal model that has read the whole text
- eos: the same after an end-of-sequence token is appended
- auto: what the model describes; else last for a causal model, mean for an encoder

Padding is always on the right and masked, whatever the tokenizer prefers, so a text has the positions that
it has alone. Equal texts are encoded once and batches are formed from the texts sorted by length, so the
order of up to 65,536 items changes nothing, bit for bit (of more, so many are encoded at a time); but the other
texts of a batch and its padding change the order of floating-point sums, so a text encoded in another company may
differ by float noise (about 1e-6 in float32).

Not here: training (`adapt.py`), downloading without being asked: a hub id is fetched by huggingface_hub,
into its cache, and read from there when there is no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.encoders.language_models import (
    ModelSource,
    PooledModel,
    Pooling,
    Precision,
    SentenceModel,
    model_folder,
    sha256_of_model,
)
from semid.errors import ArtifactError, ConfigError, InputError
from semid.runtime.arrays import unit_rows
from semid.runtime.progress import track

if TYPE_CHECKING:
    from semid.data.items import Items

__all__ = ["NeuralEncoder"]

BLOCK = 1 << 16  # items whose vectors are made at once

Fields = Literal["joined", "lines", "mean"]


class NeuralEncoder:
    """Vectors from a language model.

    Parameters
    ----------
    name_or_path : path or hub id
        A model's folder, or its name on the Hugging Face hub.
    pooling : "auto", "mean", "last" or "eos"
        See the module. Anything but "auto" overrides what the model describes.
    fields : "joined", "lines" or "mean"
        What the model reads of an item: its fields as sentences (`Items.texts`), as lines `name: value`, or
        each field alone, and then the mean of the fields' vectors (as LC-Rec does).
    prompt : str
        Put before every text, as some models want ("passage: ").
    normalize : bool
        Scale vectors to unit length.
    max_length : int
        Tokens of a text that are read, if the model can take so many.
    batch_size : int
        Texts at once.
    device : "auto" or a torch device
        "auto" is CUDA, else Apple's MPS, else the CPU.
    dtype : "float32", "bfloat16" or "float16"
        Of the model while it runs; vectors are float32 always.
    revision : str, optional
        Branch, tag or commit on the hub.

    The model is loaded when it is first needed. An item without text gets zeros, as from the lexical encoder.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        pooling: Pooling = "auto",
        fields: Fields = "joined",
        prompt: str = "",
        normalize: bool = True,
        max_length: int = 512,
        batch_size: int = 64,
        device: str = "auto",
        dtype: Precision = "float32",
        revision: str | None = None,
    ) -> None:
        self.name_or_path = name_or_path
        self.pooling = pooling
        self.fields = fields
        self.prompt = prompt
        self.normalize = normalize
        self.max_length = max_length
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self._model: SentenceModel | PooledModel | None = None
        self._commit: str | None = None  # on the hub, of the model that is loaded
        self._expected_sha256: str | None = None  # the model that a stored artifact asks for

    def fit(self, items: Items) -> NeuralEncoder:
        """Load the model; there is nothing to learn from the items."""
        self._load()
        return self

    def transform(self, items: Items) -> npt.NDArray[np.float32]:
        """One vector per item, float32 [N, D].

        Raises
        ------
        InputError
            No such model, or it cannot be loaded or reached.
        ConfigError
            A parameter is misspelt or out of range.
        DependencyError
            The model needs sentence-transformers, which is not installed.
        """
        vectors, filled = np.zeros((len(items), self.dim_), np.float32), 0
        for block in self.blocks(items):
            vectors[filled : filled + len(block)] = block
            filled += len(block)
        return vectors

    def blocks(self, items: Items) -> Iterator[npt.NDArray[np.float32]]:
        """What `transform` returns, float32 [n, D] at a time; texts that several items share cost once a block."""
        for start in range(0, len(items), BLOCK):
            yield self._transform(items.part(start, min(start + BLOCK, len(items))))

    def _transform(self, items: Items) -> npt.NDArray[np.float32]:
        model = self._load()
        if self.fields == "mean":
            columns = [self._encode(column) for column in items.fields.values()]
            # A field that an item does not have counts for nothing.
            vectors = np.zeros((len(items), model.dim), np.float32)
            filled = np.zeros((len(items), 1), np.float32)
            for column in columns:
                vectors += column
                filled += column.any(axis=1, keepdims=True)
            vectors /= np.maximum(filled, 1)
        else:
            vectors = self._encode(items.texts() if self.fields == "joined" else _lines(items))
        return unit_rows(vectors) if self.normalize else vectors

    def fit_transform(self, items: Items) -> npt.NDArray[np.float32]:
        """`transform`."""
        return self.transform(items)

    @property
    def is_fitted(self) -> bool:
        """Always: a language model comes trained."""
        return True

    @property
    def dim_(self) -> int:
        """Dims of the vectors, D."""
        return self._load().dim

    # ---- identity ---------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """(no arrays, meta): which model this is, and how it is used.

        `sha256` covers the content of the model's configuration, tokenizer and weights, so that a renamed
        copy is the same model and a fine-tuned one is not.
        """
        model = self._load()
        return {}, {
            "kind": "neural",
            "name": str(self.name_or_path),
            "commit": self._commit,
            "sha256": sha256_of_model(model.source.folder),
            "pooling": model.pooling,
            "dim": model.dim,
            "max_length": model.max_length,
            "parameters": {
                "pooling": self.pooling,
                "fields": self.fields,
                "prompt": self.prompt,
                "normalize": self.normalize,
                "max_length": self.max_length,
                "dtype": self.dtype,
                "revision": self.revision,
            },
        }

    @classmethod
    def from_state(
        cls,
        arrays: dict[str, np.ndarray],
        meta: dict,
        *,
        name_or_path: str | Path | None = None,
        batch_size: int = 64,
        device: str = "auto",
    ) -> NeuralEncoder:
        """The encoder that `state` described; InputError on first use if the model is another one.

        Parameters
        ----------
        name_or_path : path or hub id, optional
            Where the model is now, if it moved.
        """
        try:
            parameters = dict(meta["parameters"])
            if name_or_path is None and meta["commit"]:
                parameters["revision"] = meta["commit"]
            place = meta["name"] if name_or_path is None else name_or_path
            encoder = cls(place, batch_size=batch_size, device=device, **parameters)
            encoder._expected_sha256 = str(meta["sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"stored neural encoder: {error!r}. Restore it from a copy.") from None
        return encoder

    # ---- encoding ---------------------------------------------------------------------------------------

    def _load(self) -> SentenceModel | PooledModel:
        if self._model is None:
            self._check()
            folder, commit = model_folder(self.name_or_path, self.revision)
            expected = self._expected_sha256
            if expected and (found := sha256_of_model(folder)) != expected:
                raise InputError(
                    f"encoder={str(self.name_or_path)!r}: another model than the one stored "
                    f"(sha256 {found[:12]}, expected {expected[:12]}). Give its folder."
                )
            own = self.pooling == "auto" and (folder / "modules.json").exists()
            source = ModelSource(str(self.name_or_path), folder, self.pooling, self.max_length, self.device, self.dtype)
            self._model = (SentenceModel if own else PooledModel)(source)
            self._commit = commit
        return self._model

    def _check(self) -> None:
        for name, choices in (("pooling", Pooling), ("fields", Fields), ("dtype", Precision)):
            if getattr(self, name) not in get_args(choices):
                expected = ", ".join(get_args(choices))
                raise ConfigError(f"{name}={getattr(self, name)!r} should be one of {expected}.")
        for name in ("max_length", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} should be at least 1.")

    def _encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [N, D] of any texts: each distinct one once, longest first; zeros for an empty one."""
        model = self._load()
        distinct = sorted({text for text in texts if text.strip()}, key=lambda text: (-len(text), text))
        vectors = np.zeros((len(distinct) + 1, model.dim), np.float32)  # the last row is for no text
        for start in track(range(0, len(distinct), self.batch_size), "embed", unit="batch"):
            batch = [self.prompt + text for text in distinct[start : start + self.batch_size]]
            vectors[start : start + len(batch)] = model.encode(batch)
        place = {text: row for row, text in enumerate(distinct)}
        return vectors[[place.get(text, -1) for text in texts]]


def _lines(items: Items) -> list[str]:
    columns = items.fields.items()
    return ["\n".join(f"{name}: {column[i]}" for name, column in columns if column[i]) for i in range(len(items))]
