"""Parse IDs in other text, or in what a model generated: each attempt at an ID, with its item.

    found = vocabulary.find(text)                     # or find_in_token_ids(...)
    look_up(found, ledger)                            # [Parsed(start=4, text="<s_a_12>...", item_id="B1", ...), ...]

`SemanticIDTokenizer.parse` does both. Not here: where attempts begin and end (`vocabulary.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.ledger.ledger import Ledger
from semid.tokens.block import TokenTable, find_base
from semid.tokens.vocabulary import Found, Vocabulary

__all__ = ["Parsed", "find_in_token_ids", "look_up"]


@dataclass(frozen=True, slots=True)
class Parsed:
    """One ID, or one malformed attempt at an ID, in a text: `text == whole[start:end]`.

    In token ids, `start` and `end` are positions in the sequence, and `text` is its tokens as text. `item_id` is None
    if no item has the ID or it is malformed; `problem` then says why.
    """

    start: int
    end: int
    text: str
    codes: tuple[int, ...] | None
    item_id: str | None
    retired: bool
    problem: str | None


def find_in_token_ids(
    vocabulary: Vocabulary,
    token_ids: Sequence[int] | npt.NDArray[np.integer],
    base: int | None,
    tokenizer: TokenTable | None = None,
) -> list[Found]:
    """Find IDs in one sequence of token ids.

    Parameters
    ----------
    vocabulary : Vocabulary
        The tokens of the IDs.
    token_ids : int [T]
        A list, an array or a tensor.
    base : int or None
        Token id of the first code.
    tokenizer : a Hugging Face tokenizer, optional
        Where to look for the tokens if `base` is None.

    Raises
    ------
    ConfigError
        Neither base nor tokenizer is given, or the tokenizer lacks the tokens.
    InputError
        `token_ids` is not one sequence of integers.
    """
    if base is None and tokenizer is not None:
        base = find_base(vocabulary, tokenizer)
    if base is None:
        raise ConfigError(
            "parsing token ids needs the token id of the first code. "
            "Give tokenizer= (extended with semid extend) or base=."
        )
    if not isinstance(token_ids, np.ndarray) and hasattr(token_ids, "tolist"):  # a tensor, without importing torch
        token_ids = token_ids.tolist()
    return vocabulary.find_token_ids(token_ids, base)


def look_up(found: Sequence[Found], ledger: Ledger) -> list[Parsed]:
    """Return each attempt with its item, retired ones included, or with the reason why there is none."""
    whole = [attempt.codes for attempt in found if attempt.codes is not None]
    found_rows = ledger.rows_of_codes(np.array(whole, np.int64)) if whole else np.zeros(0, np.int64)
    retired = iter((ledger.retired_generations(found_rows) > 0).tolist())
    rows = iter(found_rows.tolist())
    parsed = []
    for attempt in found:
        row, is_retired = (-1, False) if attempt.codes is None else (next(rows), next(retired))
        known = row >= 0
        parsed.append(
            Parsed(
                attempt.start,
                attempt.end,
                attempt.text,
                attempt.codes,
                ledger.item_ids[row] if known else None,
                known and is_retired,
                attempt.problem or (None if known else "no item has this ID"),
            )
        )
    return parsed
