"""Find the tensors of a checkpoint that hold one row per token, from its configuration, without loading a weight.

The architecture is built on torch's meta device, which has shapes but no memory, and resized there: the tensors that
change shape depend on the vocabulary. Names in files differ from names in models (a missing prefix, tied copies left
out or written twice), so they are matched to the names in the files.

Not here: writing the tensors (`tokenizer_exports/models/edit_shards.py`). V rows, H dims.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["INDEX", "SINGLE", "Blocks", "Layout", "Shard", "Weights", "block_bounds"]


INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Weights:
    """The safetensors files of a folder, and which tensor is in which.

    Raises ArtifactError if there are none, or one is missing or damaged; ConfigError for pickled weights.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = read_json(folder / INDEX) if (folder / INDEX).is_file() else None
        try:
            self.place: dict[str, str] = {} if self.index is None else dict(self.index["weight_map"])
            names = sorted(set(self.place.values()))
        except (KeyError, TypeError, ValueError):
            raise ArtifactError(f"{folder / INDEX}: has no weight_map. Download the model again.") from None
        if (folder / SINGLE).is_file() and names != [SINGLE]:  # what transformers reads, regardless of the index
            self.index, names = None, [SINGLE]
        if not names:
            raise _no_weights(folder)
        # Files of these names are also written: none may be outside the folder, or another file of the model.
        wrong = [name for name in names if not _is_weights_name(name)]
        if wrong:
            raise ArtifactError(f"{folder / INDEX}: {wrong[0]!r} names no weight file here. Download the model again.")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ArtifactError(f"{folder / missing[0]}: missing, though {INDEX} names it. Download the model again.")
        self.shards = {name: Shard(folder / name) for name in names}
        if self.index is None:
            self.place = dict.fromkeys(self.shards[SINGLE].entries, SINGLE)
        for tensor, name in self.place.items():
            if tensor not in self.shards[name].entries:
                raise ArtifactError(f"{folder / name}: has no {tensor}, though {INDEX} says so. Download it again.")

    def __contains__(self, tensor: str) -> bool:
        return tensor in self.place

    def shard(self, tensor: str) -> Shard:
        """Return the file that a tensor is in."""
        return self.shards[self.place[tensor]]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.shard(tensor).shape(tensor)


@dataclass(frozen=True)
class Layout:
    """Names, as in the files, of the tensors with one row per token."""

    n_rows: int  # V, from the configuration
    embedding: tuple[str, ...]  # copies of the input embedding, and of a head tied to it
    head: tuple[str, ...]  # the output head, if the configuration does not tie it
    biases: tuple[str, ...]  # of the head
    others: tuple[str, ...]  # grow with V and start at zero
    modules: tuple[str, ...]  # the model's own names of the embedding's and the head's module
    config_path: tuple[str, ...]  # where in config.json vocab_size is

    @classmethod
    def read(cls, folder: Path, weights: Weights) -> Layout:
        """Find the tensors of a folder.

        Raises ConfigError if transformers cannot build the architecture, ArtifactError if the files do not fit it.
        """
        config = _config(folder)
        model = _build(config, folder)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        ends = [embedding] if head is None else [embedding, head]
        rows: torch.Tensor = embedding.get_parameter("weight")
        tied = head is None or head.weight is rows
        of_embedding = _aliases(model, rows)
        of_head = [] if tied else _aliases(model, head.get_parameter("weight"))
        of_bias = [] if getattr(head, "bias", None) is None else _aliases(model, head.get_parameter("bias"))
        modules = {id(module): name for name, module in model.named_modules()}
        n_rows, prefix = rows.shape[0], model.base_model_prefix
        others = set(_growing(model, n_rows)) - {*of_embedding, *of_head, *of_bias}
        layout = cls(
            n_rows,
            _in_files(weights, of_embedding, prefix),
            _in_files(weights, of_head, prefix),
            _in_files(weights, of_bias, prefix),
            _in_files(weights, sorted(others), prefix),
            tuple(modules[id(module)] for module in ends),
            _config_path(config),
        )
        if not layout.embedding:
            raise ArtifactError(f"{folder}: no tensor {of_embedding[0]} in the weights. Download the model again.")
        for name in layout.embedding + layout.head + layout.biases:
            _check(weights, name, n_rows, folder)
        return layout


def _is_weights_name(name: object) -> bool:
    """Return whether this names a .safetensors file inside the model's folder."""
    if not isinstance(name, str) or not name.endswith(".safetensors"):
        return False
    path = PurePath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; ArtifactError if it holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: is not a JSON object. Download the model again.")
    return content


def _no_weights(folder: Path) -> ConfigError | ArtifactError:
    others = sorted(path.name for pattern in ("*.bin", "*.gguf", "*.h5", "*.pt") for path in folder.glob(pattern))
    if others:
        return ConfigError(
            f"{folder}: has {others[0]} but no {SINGLE}. Convert it: load it with transformers, save it with "
            "save_pretrained(FOLDER), and extend that folder."
        )
    return ArtifactError(f"{folder}: has no {SINGLE} and no {INDEX}, so no model's folder. Check the path.")


def _config(folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(
            f"{folder / 'config.json'}: {str(error).strip().splitlines()[0][:300]} A model with code of its own: "
            "load it yourself, use semid.extend(tokenizer, model, ids), and save it."
        ) from None


def _build(config: PreTrainedConfig, folder: Path) -> PreTrainedModel:
    """Build the model that the folder is a checkpoint of, on the meta device.

    Its class is looked up outside of that device: this imports modules, and some of them compute with tensors then.
    """
    import torch
    import transformers

    for name in config.architectures or []:
        named = getattr(transformers, name, None)
        if named is not None and hasattr(named, "_from_config"):
            with torch.device("meta"):
                model = named._from_config(config)
            if model.get_output_embeddings() is not None:
                return model
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return auto.from_config(config)
    except ValueError:
        raise ConfigError(
            f"{folder / 'config.json'}: model_type={config.model_type!r} is no language model that transformers can "
            "generate with. Choose a causal or an encoder-decoder language model."
        ) from None


def _aliases(model: PreTrainedModel, parameter: torch.Tensor) -> list[str]:
    """Return all names of a parameter."""
    return [name for name, other in model.named_parameters(remove_duplicate=False) if other is parameter]


def _growing(model: PreTrainedModel, n_rows: int) -> list[str]:
    """Return the names of the tensors that change shape with the vocabulary; changes the model."""
    import torch

    before = {name: tensor.shape for name, tensor in model.state_dict().items()}
    with torch.device("meta"):
        model.resize_token_embeddings(n_rows + 64, mean_resizing=False)
    return [name for name, tensor in model.state_dict().items() if tensor.shape != before[name]]


def _in_files(weights: Weights, names: list[str], prefix: str) -> tuple[str, ...]:
    """Return the names of a tensor in the files: as given, without or with the base model's prefix.

    If none exists, the only name that ends in the same two parts: older files of multimodal models order the parts
    differently.
    """
    found: list[str] = []
    for name in names:
        spellings = (name, name.removeprefix(prefix + "."), f"{prefix}.{name}")
        found += [spelling for spelling in spellings if spelling in weights and spelling not in found]
    if not found and names:
        tails = {tuple(name.split(".")[-2:]) for name in names}
        alike = [name for name in weights.place if tuple(name.split(".")[-2:]) in tails]
        found = alike if len(alike) == 1 else []
    return tuple(found)


def _check(weights: Weights, name: str, n_rows: int, folder: Path) -> None:
    """Raise if a tensor is packed, or has another number of rows than the configuration says."""
    shard = weights.shard(name)
    shard.check_plain(name)
    if shard.shape(name)[0] != n_rows:
        raise ArtifactError(
            f"{shard.path}: {name} has {shard.shape(name)[0]} rows, {folder / 'config.json'} says {n_rows}. The files "
            "do not belong together: download the model again."
        )


def _config_path(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the keys of config.json that lead to the object with vocab_size: none, or the name of the text part."""
    text = config.get_text_config()
    if text is config:
        return ()
    return tuple(name for name in config.sub_configs if getattr(config, name, None) is text)[:1]


Blocks = Callable[[], Iterable[tuple[int, npt.NDArray[np.float32]]]]  # (first row, float32 [m, H]), all V in order


BLOCK_NUMBERS = 1 << 21  # numbers of a matrix that are read at a time


def block_bounds(n_rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the blocks in which a matrix [n_rows, width] is read."""
    step = max(1, BLOCK_NUMBERS // width)
    for start in range(0, n_rows, step):
        yield start, min(start + step, n_rows)


PLAIN = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors -> torch
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


class Shard:
    """One safetensors file: its header, and the bytes after it.

    Raises ArtifactError if it is not such a file, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, LONGEST_HEADER):
                raise self._damaged()
            try:
                self.entries = json.loads(file.read(length))
                self.metadata = self.entries.pop("__metadata__", None)
                ends = [entry["data_offsets"][1] for entry in self.entries.values()]
            except (ValueError, AttributeError, TypeError, KeyError, IndexError, RecursionError):
                raise self._damaged() from None
        self.start = 8 + length
        if max(ends, default=0) != size - self.start:
            raise self._damaged()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self.entries[name]["shape"])

    def check_plain(self, name: str) -> None:
        """Raise ConfigError if a tensor is not stored as plain floats."""
        dtype = self.entries[name]["dtype"]
        if dtype not in PLAIN:
            raise ConfigError(
                f"{self.path}: {name} is stored as {dtype}, expected {', '.join(PLAIN)}: it is quantized. Extend the "
                "model before quantizing it, or leave the embedding out of the quantization."
            )

    def blocks(self, name: str) -> Blocks:
        """Return a function that yields a tensor [V, H], or [V] as [V, 1], in float32 blocks."""
        import torch

        self.check_plain(name)
        entry = self.entries[name]
        dtype = getattr(torch, PLAIN[entry["dtype"]])
        n_rows, width = _as_matrix(tuple(entry["shape"]))
        row_bytes = width * BYTES[entry["dtype"]]

        def blocks() -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
            with open(self.path, "rb") as file:
                file.seek(self.start + entry["data_offsets"][0])
                for start, stop in block_bounds(n_rows, width):
                    read = bytearray(file.read((stop - start) * row_bytes))
                    yield start, torch.frombuffer(read, dtype=dtype).reshape(-1, width).float().numpy()

        return blocks

    def _damaged(self) -> ArtifactError:
        return ArtifactError(f"{self.path}: not a safetensors file, or cut short. Download the model again.")


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return [V, H] for a matrix, [V, 1] for a bias [V] or [1, V]."""
    if len(shape) == 2 and shape[0] != 1:
        return shape[0], shape[1]
    return math.prod(shape), 1
