"""IDs inside other text, or inside what a model generated: each attempt at one, and the item that has it.

    found = vocabulary.find(text)                     # or find_in_token_ids(...)
    look_up(found, ledger)                            # [Parsed(start=4, text="<s_a_12>...", item_id="B1", ...), ...]

Where attempts begin and end is the vocabulary's business; `SemanticIDTokenizer.parse` puts the two together.
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
    """One ID, or one attempt at an ID, found in a text: `text == whole[start:end]`.

    In token ids, `start` and `end` are places in the sequence and `text` is how its tokens are written.
    `item_id` is None where no item has the ID or it is malformed, and then `problem` says so.
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
    """Attempts in one sequence of token ids [T], where `base`, or else the tokenizer, says where the block begins.

    Raises
    ------
    ConfigError
        Neither is given, or the tokenizer lacks the tokens.
    InputError
        Not one sequence of integers.
    """
    if base is None and tokenizer is not None:
        base = find_base(vocabulary, tokenizer)
    if base is None:
        raise ConfigError(
            "token ids can be read only if it is known where the tokens of the IDs begin. "
            "Give tokenizer= (extended with semid extend) or base=."
        )
    if not isinstance(token_ids, np.ndarray) and hasattr(token_ids, "tolist"):  # a tensor, without importing torch
        token_ids = token_ids.tolist()
    return vocabulary.find_token_ids(token_ids, base)


def look_up(found: Sequence[Found], ledger: Ledger) -> list[Parsed]:
    """Each attempt with its item, retired ones included, or with the reason why there is none."""
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
