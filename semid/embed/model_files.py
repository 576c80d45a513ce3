"""The files of a language model: found in a folder or fetched from the hub, and told apart by a checksum.

Nothing is loaded or run here. Neither pickles nor code are ever asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from semid.errors import InputError

__all__ = ["model_folder", "sha256_of_model"]

READ = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")  # of a model's folder; no pickle, no code
NOT_READ = ("onnx/*", "openvino/*", "original/*")


def model_folder(name_or_path: str | Path, revision: str | None) -> tuple[Path, str | None]:
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


def sha256_of_model(folder: Path) -> str:
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
