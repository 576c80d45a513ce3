"""Load and run language models: a batch of texts in, float32 rows out, by sentence-transformers or with pooling.

Only safetensors weights are read. Not here: what an item's text is, and which texts form a batch (`neural.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, DependencyError, InputError
from semid.runtime.devices import check_device

if TYPE_CHECKING:
    import torch

__all__ = [
    "ModelSource",
    "PooledModel",
    "Pooling",
    "Precision",
    "SentenceModel",
    "model_files",
    "model_folder",
    "sha256_of_model",
    "usable_device",
]


Loaded = TypeVar("Loaded")
Pooling = Literal["auto", "mean", "last", "eos"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelSource:
    """Which model to run, and how; the options are those of `NeuralEncoder`."""

    name: str  # in messages
    folder: Path
    pooling: Pooling
    max_length: int
    device: str
    dtype: Precision


class SentenceModel:
    """A folder with a modules.json, run by sentence-transformers as described there."""

    pooling = "own"

    def __init__(self, source: ModelSource) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise DependencyError.missing(f"--encoder {source.name}", "sentence-transformers", "text") from None
        self.source = source
        self.model = _loaded(
            source.name,
            lambda: SentenceTransformer(
                str(source.folder),
                device=usable_device(source.device),
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": source.dtype},
            ),
        )
        longest = self.model.max_seq_length
        self.max_length = min(source.max_length, longest) if longest else source.max_length
        self.model.max_seq_length = self.max_length
        self.model.eval()
        self.dim = self.encode(["text"]).shape[1]

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Return the vectors of texts, float32 [n, D]."""
        vectors = self.model.encode(
            texts, prompt="", batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True
        )
        return vectors.float().cpu().numpy()


class PooledModel:
    """Any model of transformers; its last hidden states are pooled."""

    def __init__(self, source: ModelSource) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.source = source
        self.tokenizer = _loaded(
            source.name, lambda: AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
        )
        self.model = _loaded(
            source.name,
            lambda: AutoModel.from_pretrained(
                source.folder, local_files_only=True, use_safetensors=True, dtype=source.dtype
            ),
        )
        config = self.model.config
        if config.is_encoder_decoder:
            self.model = self.model.get_encoder()
        self.model.eval().to(usable_device(source.device))
        self.pooling = source.pooling
        if self.pooling == "auto":
            causal = any(name.endswith("ForCausalLM") for name in config.architectures or [])
            self.pooling = "last" if causal else "mean"
        if self.pooling == "eos" and self.tokenizer.eos_token_id is None:
            raise ConfigError(f"pooling='eos': {source.name} has no end-of-sequence token. Use pooling='last'.")
        text_config = config.get_text_config()
        room = getattr(text_config, "max_position_embeddings", None) or source.max_length
        self.max_length = min(source.max_length, room, self.tokenizer.model_max_length)
        self.dim = text_config.hidden_size

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Return the vectors of texts, float32 [n, D]."""
        import torch

        rows = self._token_ids(texts)
        lengths = torch.tensor([len(row) for row in rows])
        width = max(1, int(lengths.max()))
        # Ids under the mask are never read, so the tokenizer needs no padding token.
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
        """Pool states [n, T, D] by mask [n, T] and lengths [n] to [n, D]; zeros where a text has no token."""
        import torch

        if self.pooling == "mean":
            kept = mask[:, :, None].bool()
            return states.masked_fill(~kept, 0).sum(1) / lengths.clamp(min=1)[:, None]
        last = states[torch.arange(len(states)), (lengths - 1).clamp(min=0)]
        return last.masked_fill(lengths[:, None] == 0, 0)


def _loaded(name: str, load: Callable[[], Loaded]) -> Loaded:
    """Return what `load` returns, without its progress bar; InputError for any way in which loading fails."""
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    shows_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        return load()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"encoder={name!r} cannot be loaded: {reason}. Expected a folder with "
            "config.json, tokenizer files and model.safetensors."
        ) from error
    finally:
        if shows_bars:
            transformers_logging.enable_progress_bar()


def usable_device(device: str) -> str:
    """Return the device for a name: "auto" is CUDA, else Apple's MPS, else the CPU; ConfigError if it is not usable."""
    import torch

    check_device(device)
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


# ---- The files of a language model: a folder, or fetched from the Hub; identified by a checksum.
# Nothing is loaded or run here. Neither pickles nor code are ever fetched.


READ = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
NOT_READ = ("onnx/*", "openvino/*", "original/*")
ADAPTER_CONFIG = "adapter_config.json"  # of peft; names a base model by its path or hub id


def model_folder(name_or_path: str | os.PathLike[str], revision: str | None) -> tuple[Path, str | None]:
    """Return the folder of a model's files, fetched if needed, and its commit on the Hub; None for a local folder."""
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        _refuse_lora(str(path), path)
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
    _refuse_lora(name, Path(folder))
    return Path(folder), os.path.basename(folder)


def _refuse_lora(name: str, folder: Path) -> None:
    """Raise InputError for low-rank changes (LoRA) of a base model that lies elsewhere.

    Libraries would load the base from the place that the adapter names. Another base there would give other vectors,
    and no checksum of this folder would tell.
    """
    for path in (*folder.glob(ADAPTER_CONFIG), *folder.glob(f"[0-9]_*/{ADAPTER_CONFIG}")):  # of the first module
        raise InputError(
            f"encoder={name!r}: a LoRA adapter ({path.relative_to(folder)}) whose base model is not in the folder. "
            "Merge the two with peft (merge_and_unload, then save_pretrained), and give the folder of the result."
        )


def sha256_of_model(folder: Path) -> str:
    """Return one checksum over the content of all files that are read, by name; hidden files are left out."""
    digest = hashlib.sha256()
    for path in model_files(folder):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(json.dumps([path.relative_to(folder).as_posix(), content]).encode())
    return digest.hexdigest()


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model that are read, sorted; hidden files and other formats of the weights are left out."""
    others = {pattern.partition("/")[0] for pattern in NOT_READ}
    found = sorted(path for pattern in READ for path in folder.rglob(pattern))
    parts = [path.relative_to(folder).parts for path in found]
    return [
        path
        for path, names in zip(found, parts, strict=True)
        if names[0] not in others and not any(name.startswith(".") for name in names)
    ]
