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
order of the items changes nothing, bit for bit; but the other texts of a batch and its padding change the
order of floating-point sums, so a text encoded in another company may differ by float noise (about 1e-6 in
float32).

Not here: training (`adapt.py`), downloading without being asked: a hub id is fetched by huggingface_hub,
into its cache, and read from there when there is no network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from semid.errors import ArtifactError, ConfigError, DependencyError, InputError

if TYPE_CHECKING:
    import torch

    from semid.catalog import Items

__all__ = ["NeuralEncoder"]

Loaded = TypeVar("Loaded")
Pooling = Literal["auto", "mean", "last", "eos"]
Fields = Literal["joined", "lines", "mean"]
Precision = Literal["float32", "bfloat16", "float16"]

READ = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")  # of a model's folder; no pickle, no code
NOT_READ = ("onnx/*", "openvino/*", "original/*")


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
        self._model: _SentenceModel | _PooledModel | None = None
        self._expected_sha256: str | None = None  # the model that a stored artefact asks for

    def fit(self, items: Items) -> NeuralEncoder:
        """Load the model; there is nothing to learn from the items."""
        self._load()
        return self

    def transform(self, items: Items, progress: bool = False) -> npt.NDArray[np.float32]:
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
        model = self._load()
        if self.fields == "mean":
            columns = [self._encode(column, progress) for column in items.fields.values()]
            # A field that an item does not have counts for nothing.
            vectors = np.zeros((len(items), model.dim), np.float32)
            filled = np.zeros((len(items), 1), np.float32)
            for column in columns:
                vectors += column
                filled += column.any(axis=1, keepdims=True)
            vectors /= np.maximum(filled, 1)
        else:
            vectors = self._encode(items.texts() if self.fields == "joined" else _lines(items), progress)
        return _unit_rows(vectors) if self.normalize else vectors

    def fit_transform(self, items: Items, progress: bool = False) -> npt.NDArray[np.float32]:
        """`transform`."""
        return self.transform(items, progress)

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
            "commit": model.commit,
            "sha256": _sha256_of_model(model.folder),
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

    def _load(self) -> _SentenceModel | _PooledModel:
        if self._model is None:
            self._check()
            folder, commit = _model_folder(self.name_or_path, self.revision)
            expected = self._expected_sha256
            if expected and (found := _sha256_of_model(folder)) != expected:
                raise InputError(
                    f"encoder={str(self.name_or_path)!r}: another model than the one stored "
                    f"(sha256 {found[:12]}, expected {expected[:12]}). Give its folder."
                )
            own = self.pooling == "auto" and (folder / "modules.json").exists()
            self._model = (_SentenceModel if own else _PooledModel)(self, folder, commit)
        return self._model

    def _check(self) -> None:
        for name, choices in (("pooling", Pooling), ("fields", Fields), ("dtype", Precision)):
            if getattr(self, name) not in get_args(choices):
                expected = ", ".join(get_args(choices))
                raise ConfigError(f"{name}={getattr(self, name)!r} should be one of {expected}.")
        for name in ("max_length", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} should be at least 1.")

    def _encode(self, texts: Sequence[str], progress: bool) -> npt.NDArray[np.float32]:
        """float32 [N, D] of any texts: each distinct one once, longest first; zeros for an empty one."""
        model = self._load()
        distinct = sorted({text for text in texts if text.strip()}, key=lambda text: (-len(text), text))
        vectors = np.zeros((len(distinct) + 1, model.dim), np.float32)  # the last row is for no text
        starts = range(0, len(distinct), self.batch_size)
        if progress:
            from tqdm import tqdm

            starts = tqdm(starts, desc="embed", unit="batch")
        for start in starts:
            batch = [self.prompt + text for text in distinct[start : start + self.batch_size]]
            vectors[start : start + len(batch)] = model.encode(batch)
        place = {text: row for row, text in enumerate(distinct)}
        return vectors[[place.get(text, -1) for text in texts]]


def _lines(items: Items) -> list[str]:
    columns = items.fields.items()
    return ["\n".join(f"{name}: {column[i]}" for name, column in columns if column[i]) for i in range(len(items))]


def _unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


# ---- models -----------------------------------------------------------------------------------------------


class _SentenceModel:
    """A folder with a modules.json, run by sentence-transformers as it describes itself."""

    pooling = "own"

    def __init__(self, encoder: NeuralEncoder, folder: Path, commit: str | None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise DependencyError.missing(
                f"--encoder {encoder.name_or_path}", "sentence-transformers", "text"
            ) from None
        self.folder, self.commit = folder, commit
        self.model = _loading(
            encoder,
            lambda: SentenceTransformer(
                str(folder),
                device=_device(encoder.device),
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": encoder.dtype},
            ),
        )
        longest = self.model.max_seq_length
        self.max_length = min(encoder.max_length, longest) if longest else encoder.max_length
        self.model.max_seq_length = self.max_length
        self.model.eval()
        self.dim = self.encode(["text"]).shape[1]

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """float32 [n, D]"""
        vectors = self.model.encode(
            texts, prompt="", batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True
        )
        return vectors.float().cpu().numpy()


class _PooledModel:
    """Any transformers model; its last hidden states are pooled here."""

    def __init__(self, encoder: NeuralEncoder, folder: Path, commit: str | None) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.folder, self.commit = folder, commit
        self.tokenizer = _loading(encoder, lambda: AutoTokenizer.from_pretrained(folder, local_files_only=True))
        self.model = _loading(
            encoder,
            lambda: AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=encoder.dtype),
        )
        config = self.model.config
        if config.is_encoder_decoder:
            self.model = self.model.get_encoder()
        self.model.eval().to(_device(encoder.device))
        self.pooling = encoder.pooling
        if self.pooling == "auto":
            causal = any(name.endswith("ForCausalLM") for name in config.architectures or [])
            self.pooling = "last" if causal else "mean"
        if self.pooling == "eos" and self.tokenizer.eos_token_id is None:
            raise ConfigError(
                f"pooling='eos': {encoder.name_or_path} has no end-of-sequence token. Use pooling='last'."
            )
        text_config = config.get_text_config()
        room = getattr(text_config, "max_position_embeddings", None) or encoder.max_length
        self.max_length = min(encoder.max_length, room, self.tokenizer.model_max_length)
        self.dim = text_config.hidden_size

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """float32 [n, D]"""
        import torch

        rows = self._token_ids(texts)
        lengths = torch.tensor([len(row) for row in rows])
        width = max(1, int(lengths.max()))
        # The id under the mask is never looked at, so a tokenizer without a padding token is no obstacle.
        token_ids = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            token_ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask = (torch.arange(width)[None] < lengths[:, None]).long()
        device = self.model.device
        with torch.inference_mode():
            found = self.model(input_ids=token_ids.to(device), attention_mask=mask.to(device))
            states = found.last_hidden_state.float().cpu()
        return self._pool(states, mask, lengths).numpy()

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        ends = self.pooling == "eos"
        rows = self.tokenizer(texts, truncation=True, max_length=max(1, self.max_length - ends))["input_ids"]
        eos = self.tokenizer.eos_token_id
        return [row + [eos] if ends and row[-1:] != [eos] else row for row in rows]

    def _pool(self, states: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """[n, D] from states [n, T, D], mask [n, T] and lengths [n]; zeros where a text has no token."""
        import torch

        if self.pooling == "mean":
            kept = mask[:, :, None].bool()
            return states.masked_fill(~kept, 0).sum(1) / lengths.clamp(min=1)[:, None]
        last = states[torch.arange(len(states)), (lengths - 1).clamp(min=0)]
        return last.masked_fill(lengths[:, None] == 0, 0)


def _loading(encoder: NeuralEncoder, load: Callable[[], Loaded]) -> Loaded:
    """What `load` returns, without a bar of its own, and its many ways to fail turned into one error."""
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    shows_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        return load()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"encoder={str(encoder.name_or_path)!r} cannot be loaded: {reason}. Expected a folder with "
            "config.json, tokenizer files and model.safetensors."
        ) from error
    finally:
        if shows_bars:
            transformers_logging.enable_progress_bar()


def _device(device: str) -> str:
    import torch

    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(f"device={device!r}: {str(error).splitlines()[0]} Use cpu, or auto.") from None
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _model_folder(name_or_path: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """(folder, commit): the model's files on this machine, fetched if need be; no commit for a folder."""
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists() and not (path / "modules.json").exists():
            raise InputError(f"encoder={str(path)!r}: no config.json there; expected a model's folder.")
        return path, None
    name = str(name_or_path)
    if path.exists() or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        what = "not a folder" if path.exists() else "no such folder"
        raise InputError(f"encoder={name!r}: {what}. Give a model's folder, a hub id, or lexical.")
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=list(READ), ignore_patterns=list(NOT_READ))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"encoder={name!r}: no such folder here, and the hub did not give it: {reason} "
            "Check the name and the network, or give the folder of a downloaded model, or use lexical."
        ) from error
    return Path(folder), os.path.basename(folder)


def _sha256_of_model(folder: Path) -> str:
    """One checksum over the content of all files that are read, by name; hidden files left out."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in READ for p in folder.rglob(pattern)):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or relative.parts[0] in (
            pattern.partition("/")[0] for pattern in NOT_READ
        ):
            continue
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(json.dumps([relative.as_posix(), content]).encode())
    return digest.hexdigest()
