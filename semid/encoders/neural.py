"""NeuralEncoder: text to vectors with a sentence-transformers model or any Hugging Face language model.

A model is a folder or a Hub id. Only safetensors weights are read, and no code from the model's folder runs. A model
that describes its own pooling (a `modules.json`) is run by sentence-transformers; any other by transformers'
`AutoModel`, and the hidden states of its last layer are pooled:

- mean: over all tokens of the text, padding excluded
- last: the state of the last token, the only one of a causal model that has read the whole text
- eos: the same after an end-of-sequence token is appended
- auto: as the model describes; else last for a causal model, mean for an encoder

Padding is always on the right and masked, whatever the tokenizer prefers, so a text has the same positions as alone.
Equal texts are encoded once, and batches are formed from the texts sorted by length, so the order of up to 65,536 items
changes nothing, bit for bit (more items are encoded in blocks of that size). But the other texts of a batch and its
padding change the order of floating-point sums, so a text encoded in another batch may differ by about 1e-6 in float32.

A Hub id is fetched by huggingface_hub into its cache, and read from there when there is no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

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
from semid.runtime.checks import check_choice
from semid.runtime.progress import track

if TYPE_CHECKING:
    from semid.data.items import Items

__all__ = ["NeuralEncoder"]

BLOCK = 1 << 16  # items whose vectors are computed at a time

Fields = Literal["joined", "lines", "mean"]


class NeuralEncoder:
    """Embed text with a language model.

    The model is loaded when it is first needed. An item without text gets zeros, as from the lexical encoder.

    Parameters
    ----------
    name_or_path : str or path
        A model's folder, or its name on the Hugging Face Hub.
    pooling : "auto", "mean", "last" or "eos"
        See the module. Anything but "auto" overrides what the model describes.
    fields : "joined", "lines" or "mean"
        What the model reads of an item: its fields as sentences (`Items.texts`), as lines `name: value`, or each field
        alone; then the vector is the mean over the fields (as in LC-Rec).
    prompt : str
        Prefix of every text, as some models need ("passage: ").
    normalize : bool
        Scale vectors to unit length.
    max_length : int
        Cap on the tokens of a text, below the model's own.
    batch_size : int
        Texts per batch.
    device : "auto" or a torch device
        "auto" is CUDA, else Apple's MPS, else the CPU.
    dtype : "float32", "bfloat16" or "float16"
        Of the model while it runs; vectors are always float32.
    revision : str, optional
        Branch, tag or commit on the Hub.
    """

    def __init__(
        self,
        name_or_path: str | PathLike[str],
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
        self._commit: str | None = None  # on the Hub, of the loaded model
        self._expected_sha256: str | None = None  # of the model of a stored artifact

    def fit(self, items: Items) -> NeuralEncoder:
        """Load the model and return self; nothing is learned from the items."""
        self._load()
        return self

    def transform(self, items: Items) -> npt.NDArray[np.float32]:
        """Return one vector per item, float32 [N, D].

        Raises
        ------
        InputError
            The model does not exist, cannot be loaded or cannot be reached.
        ConfigError
            A parameter is misspelled or out of range.
        DependencyError
            The model needs sentence-transformers, which is not installed.
        """
        vectors, filled = np.zeros((len(items), self.dim_), np.float32), 0
        for block in self.blocks(items):
            vectors[filled : filled + len(block)] = block
            filled += len(block)
        return vectors

    def blocks(self, items: Items) -> Iterator[npt.NDArray[np.float32]]:
        """Yield what `transform` returns, float32 [n, D] at a time; equal texts of a block are encoded once."""
        for start in range(0, len(items), BLOCK):
            yield self._transform(items.part(start, min(start + BLOCK, len(items))))

    def _transform(self, items: Items) -> npt.NDArray[np.float32]:
        model = self._load()
        if self.fields == "mean":
            columns = [self._encode(column) for column in items.fields.values()]
            # Fields that an item does not have are left out of the mean.
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
        """Transform the items; there is nothing to fit."""
        return self.transform(items)

    @property
    def is_fitted(self) -> bool:
        """True: a language model is trained already."""
        return True

    @property
    def dim_(self) -> int:
        """Dims of the vectors, D."""
        return self._load().dim

    # ---- identity ---------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return (no arrays, meta): which model this is, and how it is used.

        `sha256` covers the content of the model's configuration, tokenizer and weights, so a renamed copy is the same
        model and a fine-tuned one is not.
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
        arrays: Mapping[str, np.ndarray],
        meta: Mapping[str, Any],
        *,
        name_or_path: str | PathLike[str] | None = None,
        batch_size: int = 64,
        device: str = "auto",
    ) -> NeuralEncoder:
        """Return the encoder that `state` described; InputError on first use if the model is another one.

        Parameters
        ----------
        arrays, meta
            What `state` returned.
        name_or_path : str or path, optional
            Where the model is now, if it moved.
        batch_size, device
            See the class.
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
            check_choice(name, getattr(self, name), get_args(choices))
        for name in ("max_length", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} should be at least 1.")

    def _encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode texts, float32 [N, D]: each distinct text once, longest first; zeros for an empty one."""
        model = self._load()
        distinct = sorted({text for text in texts if text.strip()}, key=lambda text: (-len(text), text))
        vectors = np.zeros((len(distinct) + 1, model.dim), np.float32)  # the last row is for empty texts
        for start in track(range(0, len(distinct), self.batch_size), "embed", unit="batch"):
            batch = [self.prompt + text for text in distinct[start : start + self.batch_size]]
            vectors[start : start + len(batch)] = model.encode(batch)
        place = {text: row for row, text in enumerate(distinct)}
        return vectors[[place.get(text, -1) for text in texts]]


def _lines(items: Items) -> list[str]:
    columns = items.fields.items()
    return ["\n".join(f"{name}: {column[i]}" for name, column in columns if column[i]) for i in range(len(items))]
