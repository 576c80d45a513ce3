"""A model's folder in, an extended model's folder out, as streams: memory for the new rows, not for the model.

The output is an ordinary Hugging Face folder: plain `AutoTokenizer` and `AutoModelForCausalLM` load it, and the
artifact lies beside the model. Only the files that hold the embedding and the head are rewritten, other bytes are
copied; the folder gets its name when all of it is on the disk.

- Semantic IDs lie among the model's files, tokens of users and items in a folder of their own: `placement.py`.
- The weights always get an index, `model.safetensors.index.json`, even a single file: without one, vLLM and SGLang
  read every `*.safetensors` in the folder as weights, the artifact's too.
- Weights in other formats (pickles, GGUF, ONNX) know nothing of the new tokens, and are left out. So is
  `added_tokens.json`, which transformers 5 does not write and others would believe.
- Hard links are never the default: transformers' `save_pretrained` writes into existing files, and would ruin the
  base model through the link.

Not here: what is in a weight file (`edit_shards.py`), which tensors count (`semid/encoders/checkpoint.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semid.artifact.staging import check_output, staging
from semid.encoders.checkpoint import Layout, Weights, read_json
from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.models.copy_folder import copy_rest, write_json, write_weights
from semid.tokenizer_exports.models.edit_shards import Edit
from semid.tokenizer_exports.models.in_memory import Extended, Initializer, NewRows, Plan
from semid.tokenizer_exports.models.init_rows import Init, check_choices
from semid.tokenizer_exports.models.placement import Tokens, check_beside, files_of, save_beside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["extend_folder"]

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md", "*.tsv", "LICENSE*"]  # from the hub
LEGACY_CLASS = {"TokenizersBackend": "PreTrainedTokenizerFast"}  # transformers 5 -> what 4 calls it


def extend_folder(
    base: str | Path,
    ids: Tokens,
    output: str | Path,
    *,
    init: Init = "auto",
    alpha: float = 0.0,
    pad_to: int = 64,
    seed: int = 0,
    link: bool = False,
    transformers_4: bool = False,
    force: bool = False,
    progress: bool = False,
) -> Extended:
    """Write a copy of a model's folder in which the IDs are tokens; the same rows as `extend` on the loaded model.

    An artifact of the other kind that is in the base stays, with its tokens and rows.

    Parameters
    ----------
    base : path, or hub id
        A model's folder with safetensors weights, sharded or not. A hub id is fetched first.
    ids : SemanticIDTokenizer or ClusterTokens
    output : path
        Folder to write; appears whole or not at all. A link is replaced, and what it points to stays.
    init, alpha, pad_to, seed
        As for `extend`.
    link : bool
        Hard-link weight files that do not change, instead of copying them: no disk space, but whoever writes into
        one folder then changes the other.
    transformers_4 : bool
        Write tokenizer_config.json so that transformers 4 reads it too.
    force : bool
        Replace the output if it is such a folder already (a model with an artifact), nothing else.

    Raises
    ------
    ConfigError
        An impossible choice, a tokenizer that is not the model's, names that are taken or could be mistaken for those
        of the other kind, no safetensors weights, a quantized embedding, an architecture that transformers does not
        know.
    ArtifactError
        The base is damaged, or the disk is too small.
    OutputExistsError
        The output is there, and may not be replaced.
    """
    init = check_choices(init, pad_to, ids, alpha)
    output = Path(output)
    check_output(output, force)
    folder = _local_folder(base)
    _check_apart(folder, output)
    check_beside(folder, ids)
    weights = Weights(folder)
    layout = Layout.read(folder, weights)
    tokenizer = _tokenizer(folder)
    plan = Plan.make(tokenizer, ids, layout.n_rows, pad_to, str(folder))
    rows_of = Initializer(ids, tokenizer, plan, init=init, alpha=alpha, seed=seed, progress=progress)
    edits, extended = _edits(weights, layout, plan, rows_of)
    with staging(output, force) as draft:
        copy_rest(folder, weights, draft, files_of(folder, ids))
        write_weights(weights, edits, draft, link=link, progress=progress)
        _write_config(folder, layout, plan, draft)
        tokenizer.save_pretrained(draft)
        _keep_legacy(folder / "tokenizer_config.json", draft / "tokenizer_config.json")
        if transformers_4:
            _as_transformers_4(draft / "tokenizer_config.json")
        save_beside(draft, ids, plan.base)
    return extended


# ---- before any work


def _check_apart(folder: Path, output: Path) -> None:
    source, target = folder.resolve(), output.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise ConfigError(
            f"output={str(output)!r} should be apart from the base model {folder}. Choose another folder."
        )


def _local_folder(base: str | Path) -> Path:
    """The base model's folder, fetched from the hub if it is the name of a repository."""
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
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"{name}: no such folder here, and the hub did not give it: {reason} Check the name and the network."
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
    """What changes in which tensor, and the report. Copies of a matrix are edited alike, others by themselves."""
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
        mean = np.float32([_mean(weights, name, plan)])
        edits[name] = Edit(plan.base, np.tile(mean, (plan.n_tokens, 1)), plan.n_rows, mean)
    for name in layout.others:
        shape = weights.shape(name)
        if max(shape) != np.prod(shape) or max(shape) != layout.n_rows:
            raise ConfigError(
                f"{weights.shard(name).path}: {name} has shape {list(shape)} and grows with the vocabulary in a way "
                "unknown here. Load the model, use semid.extend(tokenizer, model, ids), and save it."
            )
        edits[name] = Edit(layout.n_rows, np.zeros((0, 1), np.float32), plan.n_rows, np.zeros(1, np.float32))
    reports = tuple(rows.report for rows in made.values())
    return edits, Extended(plan.base, plan.n_tokens, plan.n_rows, True, rows_of.init, modules, reports)


def _distinct(weights: Weights, names: list[str]) -> dict[str, str]:
    """Name -> the first name with equal content. A T5 1.1 head is tied by its configuration, yet has its own values;
    transformers then leaves it untied, and so do we."""
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
    """Mean of the known entries of a bias."""
    whole = np.concatenate([block for _, block in weights.shard(name).blocks(name)()])
    return float(whole[plan.known].mean())


# ---- writing


def _write_config(folder: Path, layout: Layout, plan: Plan, draft: Path) -> None:
    """config.json with the new vocab_size, wherever it stands; all else as it was."""
    config = read_json(folder / "config.json")
    part = config
    for key in layout.config_path:
        part = part.setdefault(key, {})
    part["vocab_size"] = plan.n_rows
    if config.get("vocab_size") == layout.n_rows:
        config["vocab_size"] = plan.n_rows
    write_json(draft / "config.json", config)


def _keep_legacy(base: Path, saved: Path) -> None:
    """Llama 2's `legacy`: transformers 5 loads by it (spaces around added tokens hang on it), and does not save it."""
    legacy = read_json(base).get("legacy") if base.is_file() else None
    settings = read_json(saved)
    if legacy is not None and "legacy" not in settings:
        write_json(saved, settings | {"legacy": legacy})


def _as_transformers_4(path: Path) -> None:
    """The two keys that transformers 4 reads otherwise; transformers 5 reads these too."""
    settings = read_json(path)
    settings["tokenizer_class"] = LEGACY_CLASS.get(settings.get("tokenizer_class"), settings.get("tokenizer_class"))
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):
        del settings["extra_special_tokens"]
        settings["additional_special_tokens"] = extra
    write_json(path, settings)
