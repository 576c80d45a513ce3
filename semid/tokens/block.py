"""Where the tokens of an artifact are in a language model's vocabulary: one block of ids that begins at `base`.

Works with any Hugging Face tokenizer without importing transformers. Adding the block is the business of
`tokenizer_exports/models/add_tokens.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from semid.errors import ConfigError
from semid.tokens.vocabulary import Vocabulary

__all__ = ["find_base"]

ADD = "Add them with: semid extend BASE DIR -o OUT, or semid.extend(tokenizer, model, ids)."


class TokenTable(Protocol):
    """What is asked of a tokenizer; every Hugging Face tokenizer has it."""

    def convert_tokens_to_ids(self, tokens: list[str]) -> Sequence[int | None]: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> Sequence[str | None]: ...


def find_base(vocabulary: Vocabulary, tokenizer: TokenTable) -> int:
    """The token id of the first code; the block is `range(base, base + len(vocabulary))`, in order.

    Raises
    ------
    ConfigError
        Tokens of the block are not in the tokenizer (named), or not there in one piece and in order.

    >>> class Table:
    ...     tokens = ["hello", "<s_a_0>", "<s_a_1>", "<s_b_0>", "<|sid_begin|>", "<|sid_end|>"]
    ...     def convert_tokens_to_ids(self, tokens):
    ...         return [self.tokens.index(token) if token in self.tokens else None for token in tokens]
    ...     def convert_ids_to_tokens(self, ids):
    ...         return [self.tokens[i] for i in ids]
    >>> find_base(Vocabulary([2, 1]), Table())
    1
    >>> try:
    ...     find_base(Vocabulary([2, 2]), Table())
    ... except ConfigError as error:
    ...     print(str(error)[:68])
    the tokenizer lacks 1 of the 6 tokens of the IDs: '<s_b_1>'. Add the
    """
    tokens = vocabulary.tokens
    ids = list(tokenizer.convert_tokens_to_ids(tokens))
    known = [token_id for token_id in ids if token_id is not None]
    named = iter(tokenizer.convert_ids_to_tokens(known))
    # A tokenizer with an unknown token gives its id for a token that it lacks: ask for the name back.
    missing = [token for token, i in zip(tokens, ids, strict=True) if i is None or next(named) != token]
    if missing:
        shown = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ConfigError(f"the tokenizer lacks {len(missing)} of the {len(tokens)} tokens of the IDs: {shown}. {ADD}")
    base = ids[0]
    for place, (token, token_id) in enumerate(zip(tokens, ids, strict=True)):
        if token_id != base + place:
            raise ConfigError(
                f"token {token!r} has id {token_id}, expected {base + place}: the tokens of the IDs should be one "
                f"block in the order of vocabulary.tokens. Start from a tokenizer without them. {ADD}"
            )
    return base
