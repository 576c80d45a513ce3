"""Copy the files of a model's folder into another: weights are edited, linked or copied, the rest is copied.

Memory holds one block of bytes, whatever the size of the model. Weights and JSON are written to new files only ("x"),
since an existing file may be a link to one of the base model.

Not here: what changes in the weights (`on_disk.py`).
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from semid.artifact.atomic import is_litter
from semid.encoders.checkpoint import INDEX, SINGLE, Weights
from semid.errors import ArtifactError, ConfigError
from semid.runtime.progress import bar
from semid.tokenizer_exports.models.edit_shards import Edit, copy_bytes, write_edited

__all__ = ["copy_rest", "write_json", "write_weights"]

logger = logging.getLogger("semid")

SKIPPED_FOLDERS = {"onnx", "openvino", "original", "coreml", "gguf"}
SKIPPED_SUFFIXES = {".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".tflite"}
SKIPPED_PREFIXES = ("consolidated", "pytorch_model", "tf_model", "flax_model")
SKIPPED_NAMES = {"added_tokens.json"}

Advance = Callable[[int], object]


def copy_rest(folder: Path, weights: Weights, draft: Path, replaced: Collection[Path]) -> None:
    """Copy all files except weights, their index, hidden files and those in `replaced` (relative names)."""
    for source in sorted(folder.rglob("*")):
        name = source.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if source.is_dir() or hidden or is_litter(name.name) or str(name) in weights.shards:
            continue
        if str(name) in SKIPPED_NAMES or name in replaced:
            continue
        if _is_other_weights(name):
            logger.info("%s: left out, since it lacks the new tokens", source)
            continue
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, draft / name)


def _is_other_weights(name: Path) -> bool:
    """Return whether this is the model in another format, or a variant that transformers does not load by default."""
    variant = name.suffix == ".safetensors" and str(name).startswith("model")
    if variant or name.parts[0] in SKIPPED_FOLDERS:
        return True
    return name.suffix in SKIPPED_SUFFIXES or name.name.startswith(SKIPPED_PREFIXES)


def write_weights(weights: Weights, edits: Mapping[str, Edit], draft: Path, *, link: bool) -> None:
    """Write all weight files, edited, linked or copied, and their index.

    Parameters
    ----------
    weights : Weights
        Those of the base model.
    edits : tensor name -> Edit
        What changes.
    draft : Path
        Folder to write into.
    link : bool
        Hard-link files without edits instead of copying them.

    Raises
    ------
    ArtifactError
        The disk is too small.
    ConfigError
        A file should be linked and cannot be.
    """
    sizes = {name: shard.path.stat().st_size for name, shard in weights.shards.items()}
    edited = {weights.place[name] for name in edits}
    _check_room(draft, sum(size for name, size in sizes.items() if not link or name in edited))
    grown = 0
    with bar("writing weights", sum(sizes.values()), unit="B") as advance:
        for name, shard in weights.shards.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            if name in edited:
                own = {tensor: edit for tensor, edit in edits.items() if weights.place[tensor] == name}
                with open(draft / name, "xb") as target:
                    grown += write_edited(shard, own, target)
                advance(sizes[name])
            elif link:
                _link(shard.path, draft / name)
                advance(sizes[name])
            else:
                _copy(shard.path, draft / name, sizes[name], advance)
    if weights.index is None:
        total = sum(
            entry["data_offsets"][1] - entry["data_offsets"][0] for entry in weights.shards[SINGLE].entries.values()
        )
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.place.items()))}
    else:
        index = weights.index
    metadata = dict(index.get("metadata") or {})
    if "total_size" in metadata:
        metadata["total_size"] += grown
    if "total_parameters" in metadata:
        metadata["total_parameters"] += sum(_grown_numbers(weights, name, edit) for name, edit in edits.items())
    write_json(draft / INDEX, {**index, "metadata": metadata})


def _grown_numbers(weights: Weights, name: str, edit: Edit) -> int:
    width = len(edit.padding)
    return edit.n_rows * width - math.prod(weights.shape(name))


def _copy(source: Path, target: Path, size: int, advance: Advance) -> None:
    with open(source, "rb") as old, open(target, "xb") as new:
        step = 1 << 28
        for start in range(0, size, step):
            copy_bytes(old, new, start, min(step, size - start))
            advance(min(step, size - start))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        raise ConfigError(
            f"--link: {source} cannot be linked into {target.parent.parent}: {error.strerror}. Use the same disk, or "
            "leave --link out."
        ) from None


def _check_room(draft: Path, needed: int) -> None:
    free = shutil.disk_usage(draft).free
    if free < needed:
        raise ArtifactError(
            f"{draft.parent}: has {free / 1e9:.1f} GB free, the model needs {needed / 1e9:.1f} GB. Make room there, "
            "choose another folder, or use --link."
        )


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file as Hugging Face does, indented and not escaped; replace one of that name."""
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
