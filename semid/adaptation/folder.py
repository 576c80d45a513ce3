"""The folder that `adapt` writes: an ordinary sentence-transformers model, base weights and all.

    config.json, tokenizer, *.safetensors   of the base model: hard links where the disk allows it, else copies
    N_Normalize/                            vectors of unit length go into the layers
    N_Dense/                                one for each layer of the adapter
    N_Normalize/
    modules.json                            in which order they run
    semid_adapt.json                        where the model comes from, and what learning it was worth

No code and no path is in it. Any program that loads sentence-transformers models runs it, `semid fit --encoder` too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semid.adaptation.adapter import Dense
from semid.adaptation.config import AdaptConfig
from semid.artifact.atomic import check_folder
from semid.artifact.tensors import tensor_blocks
from semid.encoders.language_models import model_files
from semid.errors import ConfigError, DependencyError, InputError, OutputExistsError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

__all__ = ["REPORT", "add_layers", "check_adapted_output", "sentence_folder", "write_report"]

REPORT = "semid_adapt.json"
MODULES = "modules.json"
KIND = "sentence_transformers.models."  # the name that releases before 6 know too
RELU, IDENTITY = "torch.nn.modules.activation.ReLU", "torch.nn.modules.linear.Identity"


def check_adapted_output(output: Path, force: bool) -> None:
    """Check the output folder before any work is done.

    Raises
    ------
    OutputExistsError
        It is not empty, and `force` is not given or it was not written by `adapt`.
    ArtifactError
        It cannot be written.
    """
    check_folder(output)
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not force:
        raise OutputExistsError(f"{output}: exists. Choose another folder, or use --force to replace it.")
    if not (output / REPORT).is_file():
        raise OutputExistsError(
            f"{output}: is not a model written by semid adapt (no {REPORT}), so --force does not replace it. "
            "Choose another folder, or remove this one."
        )


def sentence_folder(base: Path, place: Path, config: AdaptConfig) -> None:
    """Fill an empty folder with a model as a sentence-transformers model whose vectors have unit length.

    A model that describes its own pooling stays as it is. Any other gets the pooling of `config`, as `NeuralEncoder`
    pools it, and a tokenizer that pads on the right.

    Parameters
    ----------
    base : Path
        Folder of the model.
    place : Path
        The folder to fill.
    config : AdaptConfig
        Pooling and length of texts.

    Raises
    ------
    ConfigError
        The model describes its own pooling and `config` asks for another; a pooling that the tokenizer cannot do.
    DependencyError
        sentence-transformers is missing.
    """
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        raise DependencyError.missing("semid adapt", "sentence-transformers", "adapt") from None
    for path in model_files(base):
        if path.name != REPORT:
            _link(path, place / path.relative_to(base))
    if (base / MODULES).exists():
        if config.pooling != "auto":
            raise ConfigError(
                f"pooling={config.pooling!r}: the model describes its own pooling ({MODULES}). Leave pooling out."
            )
        modules = _modules(place)
        if modules[-1]["type"].rpartition(".")[2] != "Normalize":
            _add(place, "Normalize")
        return
    _pool(base, place, config)
    _add(place, "Normalize")


def add_layers(folder: Path, layers: Sequence[Dense]) -> None:
    """Add dense layers behind a model whose vectors have unit length, and make theirs so too.

    Parameters
    ----------
    folder : Path
        As `sentence_folder` fills it. Its `modules.json` is replaced, never written into.
    layers : sequence of Dense
        None leave the model as it is.
    """
    for layer in layers:
        place = _add(folder, "Dense")
        wide, narrow = layer.weight.shape[1], layer.weight.shape[0]
        settings = {"in_features": wide, "out_features": narrow, "bias": True}
        settings["activation_function"] = RELU if layer.relu else IDENTITY
        _write_json(place / "config.json", settings)
        tensors = {"linear.weight": layer.weight, "linear.bias": layer.bias}
        (place / "model.safetensors").write_bytes(b"".join(tensor_blocks(tensors)))
    if layers:
        _add(folder, "Normalize")


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write `semid_adapt.json`."""
    _write_json(folder / REPORT, report)


def _modules(folder: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads((folder / MODULES).read_text("utf-8"))
        return [dict(module) | {"type": str(module["type"])} for module in modules]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{MODULES} of the model is damaged: {error!r}. Download the model again.") from None


def _add(folder: Path, kind: str) -> Path:
    """Add a module behind the others, and return its folder."""
    modules = _modules(folder)
    number = len(modules)
    place = folder / f"{number}_{kind}"
    place.mkdir()
    modules.append({"idx": number, "name": str(number), "path": place.name, "type": KIND + kind})
    _write_json(folder / MODULES, modules)
    if kind == "Normalize":
        _write_json(place / "config.json", {})
    return place


def _pool(base: Path, place: Path, config: AdaptConfig) -> None:
    """Describe a plain model of transformers: its length, pooling and tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        model_config: PreTrainedConfig = AutoConfig.from_pretrained(base, local_files_only=True)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise InputError(f"encoder={base.name!r} cannot be loaded: {reason}") from error
    text_config = model_config.get_text_config()
    pooling = config.pooling
    if pooling == "auto":
        causal = any(name.endswith("ForCausalLM") for name in model_config.architectures or [])
        pooling = "last" if causal else "mean"
    room = getattr(text_config, "max_position_embeddings", None) or config.max_length
    longest = min(config.max_length, room, tokenizer.model_max_length)
    _save_tokenizer(tokenizer, place, ends=pooling == "eos")
    (place / "1_Pooling").mkdir()
    modes = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_lasttoken": pooling != "mean"}
    off = {f"pooling_mode_{name}": False for name in ("cls_token", "max_tokens", "mean_sqrt_len_tokens")}
    _write_json(
        place / "1_Pooling" / "config.json", {"word_embedding_dimension": text_config.hidden_size, **modes, **off}
    )
    _write_json(place / "sentence_bert_config.json", {"max_seq_length": int(longest), "do_lower_case": False})
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"idx": n, "name": str(n), "path": path, "type": KIND + kind} for n, (path, kind) in enumerate(parts)]
    _write_json(place / MODULES, modules)


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, place: Path, *, ends: bool) -> None:
    """Save a tokenizer that pads on the right, has a token for it, and ends texts if asked for."""
    eos = tokenizer.eos_token
    if tokenizer.pad_token is None:
        if eos is None and tokenizer.unk_token is None:
            raise ConfigError("the model's tokenizer has no token to pad with. Give it a pad_token first.")
        tokenizer.pad_token = eos or tokenizer.unk_token
    tokenizer.padding_side = "right"  # so that a text has the same positions as alone
    if ends and tokenizer("a")["input_ids"][-1:] != [tokenizer.eos_token_id]:
        if eos is None:
            raise ConfigError("pooling='eos': the model has no end-of-sequence token. Use pooling='last'.")
        from tokenizers import processors

        rust = getattr(tokenizer, "backend_tokenizer", None)
        if rust is None:
            raise ConfigError("pooling='eos': the model has no tokenizer.json, which this needs. Use pooling='last'.")
        ending = processors.TemplateProcessing(
            single=f"$A {eos}", pair=f"$A $B {eos}", special_tokens=[(eos, tokenizer.eos_token_id)]
        )
        before = rust.post_processor
        rust.post_processor = processors.Sequence([before, ending]) if before else ending
    for path in place.iterdir():  # a link must not be written into
        if path.name.startswith(
            ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges", "chat_template")
        ):
            path.unlink()
    tokenizer.save_pretrained(str(place))


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where the disk does not allow that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = source.resolve()
    if source.suffix == ".safetensors":
        try:
            os.link(whole, target)
        except OSError:
            shutil.copyfile(whole, target)
        return
    shutil.copyfile(whole, target)  # small, and its modules.json is replaced


def _write_json(path: Path, data: Any) -> None:
    """Write a JSON file anew; an earlier one may be a link to the base model's."""
    path.unlink(missing_ok=True)
    text = json.dumps(data, indent=2, ensure_ascii=False, default=_number)
    path.write_text(text + "\n", "utf-8")


def _number(value: object) -> float | int:
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    raise TypeError(f"{value!r} is no JSON")
