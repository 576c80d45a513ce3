"""Extend a model's folder into another folder, as streams: memory holds the new rows, never the model.

The output is an ordinary Hugging Face folder, which plain `AutoTokenizer` and `AutoModelForCausalLM` load, with the
artifact in it. Only the files that hold the embedding and the head are rewritten; other bytes are copied. The folder
gets its name when everything is on disk.

- Semantic IDs lie among the model's files, tokens of users and items in a folder of their own: `placement.py`.
- The weights always get an index, `model.safetensors.index.json`, even a single file: without one, vLLM and SGLang
  read every `*.safetensors` in the folder as weights, the artifact's too.
- Weights in other formats (pickles, GGUF, ONNX) lack the new tokens, and are left out. So is `added_tokens.json`, which
  transformers 5 does not write and older programs would trust.
- Hard links are never the default: transformers' `save_pretrained` writes into existing files, and would damage the
  base model through the link.

Not here: what is in a weight file (`edit_shards.py`), which tensors grow (`semid/encoders/checkpoint.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semid.artifact.staging import check_model_output, staged_folder
from semid.encoders.checkpoint import Layout, Weights, read_json
from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.models.copy_folder import copy_rest, write_json, write_weights
from semid.tokenizer_exports.models.edit_shards import Edit
from semid.tokenizer_exports.models.init_rows import Init, check_choices
from semid.tokenizer_exports.models.placement import check_placement, files_of, save_in_model
from semid.tokenizer_exports.models.plan import Extended, Initializer, NewRows, Plan
from semid.tokens.source import TokenSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["extend_folder"]

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md", "*.tsv", "LICENSE*"]
LEGACY_CLASS = {"TokenizersBackend": "PreTrainedTokenizerFast"}  # transformers 5 -> what 4 calls it


def extend_folder(
    base: str | Path,
    ids: TokenSource,
    output: str | Path,
    *,
    init: Init = "auto",
    alpha: float = 0.0,
    pad_to: int = 64,
    seed: int = 0,
    link: bool = False,
    transformers_4: bool = False,
    force: bool = False,
) -> Extended:
    """Write a copy of a model's folder in which the IDs are tokens, with the same rows as `extend` gives.

    An artifact of the other kind in the base stays, with its tokens and rows.

    Parameters
    ----------
    base : path, or Hub id
        A model's folder with safetensors weights, sharded or not. A Hub id is fetched first.
    ids : SemanticIDTokenizer or ClusterTokens
        The tokens to add.
    output : path
        Folder to write; it appears complete or not at all. A symbolic link is replaced, and its target stays.
    init, alpha, pad_to, seed
        As for `extend`.
    link : bool
        Hard-link weight files that do not change instead of copying them. That takes no disk space, but a program that
        writes into one folder then changes the other. False by default.
    transformers_4 : bool
        Write tokenizer_config.json so that transformers 4 reads it too. False by default.
    force : bool
        Replace the output if it is a model with an artifact; nothing else is ever replaced. False by default.

    Returns
    -------
    Extended
        Where the tokens are, and how their rows start.

    Raises
    ------
    ConfigError
        A choice that is impossible, a tokenizer that is not the model's, token names that are taken or could be
        mistaken for those of the other kind, no safetensors weights, a quantized embedding, an architecture that
        transformers does not know.
    ArtifactError
        The base is damaged, or the disk is too small.
    OutputExistsError
        The output exists, and may not be replaced.
    """
    init = check_choices(init, pad_to, ids, alpha)
    output = Path(output)
    check_model_output(output, force)
    folder = _local_folder(base)
    _check_separate(folder, output)
    tokens = check_placement(folder, ids)
    weights = Weights(folder)
    layout = Layout.read(folder, weights)
    tokenizer = _tokenizer(folder)
    plan = Plan.make(tokenizer, tokens, layout.n_rows, pad_to, str(folder))
    rows_of = Initializer(tokens, tokenizer, plan, init=init, alpha=alpha, seed=seed)
    edits, extended = _edits(weights, layout, plan, rows_of)
    with staged_folder(output, force) as draft:
        copy_rest(folder, weights, draft, files_of(folder, tokens.kind))
        write_weights(weights, edits, draft, link=link)
        _write_config(folder, layout, plan, draft)
        tokenizer.save_pretrained(draft)
        _keep_legacy(folder / "tokenizer_config.json", draft / "tokenizer_config.json")
        if transformers_4:
            _as_transformers_4(draft / "tokenizer_config.json")
        save_in_model(draft, tokens, plan.base)
    return extended


# ---- before any work


def _check_separate(folder: Path, output: Path) -> None:
    source, target = folder.resolve(), output.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise ConfigError(
            f"output={str(output)!r} should be outside of the base model {folder}. Choose another folder."
        )


def _local_folder(base: str | Path) -> Path:
    """Return the base model's folder, fetched from the Hub if it is the name of a repository."""
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder}: no config.json there; expected a model's folder.")
        return folder
    name = str(base)
    if folder.exists() or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"{name}: {'not a folder' if folder.exists() else 'no such folder'}. Give a model's folder.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"{name}: no such folder, and the Hub did not provide it: {reason} Check the name and the network."
        ) from error


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"{folder}: the tokenizer cannot be loaded: {reason} Give a model's folder with one."
        ) from error


# ---- new rows


def _edits(weights: Weights, layout: Layout, plan: Plan, rows_of: Initializer) -> tuple[dict[str, Edit], Extended]:
    """Return what changes in which tensor, and the report. Copies of a matrix get the same edit."""
    names = [*layout.embedding, *layout.head]
    leaders = _distinct(weights, names)
    separate = len(set(leaders.values())) > 1
    modules = layout.modules if separate else layout.modules[:1]
    if not plan.fresh:
        return {}, Extended(plan.base, plan.n_tokens, plan.n_rows, False, rows_of.init, modules, ())
    made: dict[str, NewRows] = {}
    for leader in dict.fromkeys(leaders.values()):
        made[leader] = rows_of("head" if made else "input", weights.shard(leader).blocks(leader))
    edits = {
        name: Edit(plan.base, made[leader].block, plan.n_rows, made[leader].padding) for name, leader in leaders.items()
    }
    for name in layout.biases:
        mean = np.array([_mean(weights, name, plan)], np.float32)
        edits[name] = Edit(plan.base, np.tile(mean, (plan.n_tokens, 1)), plan.n_rows, mean)
    for name in layout.others:
        shape = weights.shape(name)
        if max(shape) != np.prod(shape) or max(shape) != layout.n_rows:
            raise ConfigError(
                f"{weights.shard(name).path}: {name} has shape {list(shape)} and grows with the vocabulary in a way "
                "that semid does not know. Load the model, use semid.extend(tokenizer, model, ids), and save it."
            )
        edits[name] = Edit(layout.n_rows, np.zeros((0, 1), np.float32), plan.n_rows, np.zeros(1, np.float32))
    reports = tuple(rows.report for rows in made.values())
    return edits, Extended(plan.base, plan.n_tokens, plan.n_rows, True, rows_of.init, modules, reports)


def _distinct(weights: Weights, names: list[str]) -> dict[str, str]:
    """Return name -> the first name with equal content.

    A T5 1.1 head is tied by its configuration, yet has its own values; transformers then leaves it untied, as here.
    """
    leaders: dict[str, str] = {}
    for name in names:
        equal = (leader for leader in dict.fromkeys(leaders.values()) if _equal(weights, name, leader))
        leaders[name] = next(equal, name)
    return leaders


def _equal(weights: Weights, one: str, other: str) -> bool:
    if weights.shape(one) != weights.shape(other):
        return False
    pairs = zip(weights.shard(one).blocks(one)(), weights.shard(other).blocks(other)(), strict=True)
    return all(np.array_equal(a, b) for (_, a), (_, b) in pairs)


def _mean(weights: Weights, name: str, plan: Plan) -> float:
    """Return the mean of a bias over the known tokens."""
    whole = np.concatenate([block for _, block in weights.shard(name).blocks(name)()])
    return float(whole[plan.known].mean())


# ---- writing


def _write_config(folder: Path, layout: Layout, plan: Plan, draft: Path) -> None:
    """Write config.json with the new vocab_size, wherever it stands, and the rest unchanged."""
    config = read_json(folder / "config.json")
    part = config
    for key in layout.config_path:
        part = part.setdefault(key, {})
    part["vocab_size"] = plan.n_rows
    if config.get("vocab_size") == layout.n_rows:
        config["vocab_size"] = plan.n_rows
    write_json(draft / "config.json", config)


def _keep_legacy(base: Path, saved: Path) -> None:
    """Keep Llama 2's `legacy`: spaces around added tokens depend on it, and transformers 5 does not save it."""
    legacy = read_json(base).get("legacy") if base.is_file() else None
    settings = read_json(saved)
    if legacy is not None and "legacy" not in settings:
        write_json(saved, settings | {"legacy": legacy})


def _as_transformers_4(path: Path) -> None:
    """Write two keys as transformers 4 knows them; transformers 5 reads these too."""
    settings = read_json(path)
    name = settings.get("tokenizer_class")
    settings["tokenizer_class"] = LEGACY_CLASS.get(name, name) if isinstance(name, str) else name
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):
        del settings["extra_special_tokens"]
        settings["additional_special_tokens"] = extra
    write_json(path, settings)
