"""Mean input embeddings of texts under a frozen language model: for each text, the mean of its tokens' rows.

Only the embedding's tensor is read, block by block from the safetensors file; no other weights are loaded.

Not here: which tensor that is (`checkpoint.py`). N texts, V rows, H dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.encoders.checkpoint import Layout, Weights
from semid.errors import InputError
from semid.runtime.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TEXT_BATCH", "first_tokens", "mean_text_rows"]


def mean_text_rows(folder: str | Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the mean input embeddings of the first 64 tokens of each text, float32 [N, H]; zeros without tokens.

    Parameters
    ----------
    folder : str or path
        A model's folder with config.json, a tokenizer and safetensors weights.
    texts : sequence of N strings

    Raises
    ------
    InputError
        The folder does not exist, or has no tokenizer.
    ArtifactError, ConfigError
        Its weights are missing, damaged, pickled or quantized.
    """
    from scipy.sparse import csr_array

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json there; expected a language model's folder.")
    weights = Weights(folder)
    layout = Layout.read(folder, weights)
    name = layout.embedding[0]
    tokens = _tokens(folder, texts, layout.n_rows)
    lengths = np.array([len(row) for row in tokens], np.int64)
    flat = np.array([token for row in tokens for token in row], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shares = csr_array((np.repeat(1 / np.maximum(lengths, 1), lengths), flat, offsets), (len(texts), layout.n_rows))
    shares, means = shares.tocsc(), np.zeros((len(texts), weights.shape(name)[1]))
    for start, block in weights.shard(name).blocks(name)():
        means += shares[:, start : start + len(block)] @ block.astype(np.float64)
    return means.astype(np.float32)


def _tokens(folder: Path, texts: Sequence[str], n_rows: int) -> list[list[int]]:
    """Return the first tokens of each text that have a row."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise InputError(f"{folder}: no readable tokenizer ({reason}). Give a language model's folder.") from None
    found: list[list[int]] = []
    known = np.ones(n_rows, bool)
    with bar("reading texts", len(texts)) as advance:
        for start in range(0, len(texts), TEXT_BATCH):
            batch = texts[start : start + TEXT_BATCH]
            found += first_tokens(tokenizer, batch, known)
            advance(len(batch))
    return found


TEXT_TOKENS = 64  # tokens of an item's text that are read
TEXT_BATCH = 1024  # texts tokenized at a time


def first_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], known: npt.NDArray[np.bool_]
) -> list[list[int]]:
    """Return the first TEXT_TOKENS tokens of each text that have `known` [V] set."""
    plain = {
        "add_special_tokens": False, "padding": False, "truncation": False, "return_attention_mask": False,
        "return_token_type_ids": False, "verbose": False,
    }  # fmt: skip
    # a token rarely has more than 16 characters, so nothing is cut off that would be read
    found = tokenizer([text[: 16 * TEXT_TOKENS] for text in texts], **plain)["input_ids"]
    return [[token for token in row if token < len(known) and known[token]][:TEXT_TOKENS] for row in found]
