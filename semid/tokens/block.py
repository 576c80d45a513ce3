"""Find the tokens of an artifact in a language model's vocabulary: one block of token ids that begins at `base`.

Works with any Hugging Face tokenizer without importing transformers.

Not here: adding the block (`tokenizer_exports/models/add_tokens.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from semid.errors import ConfigError
from semid.tokens.source import TokenBlock

__all__ = ["TokenTable", "find_base"]

ADD = "Add them with: semid extend BASE DIR -o OUT, or semid.extend(tokenizer, model, ids)."


class TokenTable(Protocol):
    """The two methods that are needed of a tokenizer; every Hugging Face tokenizer has them. A list gives a list."""

    def convert_tokens_to_ids(self, tokens: list[str]) -> int | None | Sequence[int | None]:
        """Return the token id of each token; None or the id of an unknown token where there is none."""

    def convert_ids_to_tokens(self, ids: list[int]) -> str | None | Sequence[str | None]:
        """Return the token of each token id."""


def find_base(vocabulary: TokenBlock, tokenizer: TokenTable) -> int:
    """Return the token id of the first code: the tokens have the ids `range(base, base + len(vocabulary))`, in order.

    Parameters
    ----------
    vocabulary : Vocabulary or another TokenBlock
        The names of the tokens.
    tokenizer : a Hugging Face tokenizer
        The one that is searched.

    Raises
    ------
    ConfigError
        The tokenizer lacks some of the tokens (the first five are named), or does not hold them as one block in order.

    >>> class Table:
    ...     tokens = ["hello", "<s_a_0>", "<s_a_1>", "<s_b_0>", "<|sid_begin|>", "<|sid_end|>"]
    ...     def convert_tokens_to_ids(self, tokens):
    ...         return [self.tokens.index(token) if token in self.tokens else None for token in tokens]
    ...     def convert_ids_to_tokens(self, ids):
    ...         return [self.tokens[i] for i in ids]
    >>> from semid.tokens import Vocabulary
    >>> find_base(Vocabulary([2, 1]), Table())
    1
    >>> try:
    ...     find_base(Vocabulary([2, 2]), Table())
    ... except ConfigError as error:
    ...     print(str(error)[:68])
    the tokenizer lacks 1 of the 6 tokens of the IDs: '<s_b_1>'. Add the
    """
    tokens = vocabulary.tokens
    ids = tokenizer.convert_tokens_to_ids(tokens)
    assert isinstance(ids, Sequence)
    known = tokenizer.convert_ids_to_tokens([token_id for token_id in ids if token_id is not None])
    assert isinstance(known, Sequence)
    names = iter(known)
    # For a token that it lacks, a tokenizer gives the id of its unknown token: so compare the name of the id.
    missing = [token for token, i in zip(tokens, ids, strict=True) if i is None or next(names) != token]
    if missing:
        shown = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ConfigError(f"the tokenizer lacks {len(missing)} of the {len(tokens)} tokens of the IDs: {shown}. {ADD}")
    base = ids[0]
    assert base is not None
    for place, (token, token_id) in enumerate(zip(tokens, ids, strict=True)):
        if token_id != base + place:
            raise ConfigError(
                f"token {token!r} has id {token_id}, expected {base + place}: the tokens of the IDs should be one "
                f"block in the order of vocabulary.tokens. Start from a tokenizer without them. {ADD}"
            )
    return base
