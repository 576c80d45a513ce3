"""Codes to tokens and back.

vocabulary.py   Vocabulary: code <-> token string <-> token id, and finding IDs in text or token ids
templates.py    how the token of a code is spelled, and which spellings are safe
id_table.py     codes and tokens of ids, from a ledger and a vocabulary
source.py       what adding tokens to a language model needs to know of them
block.py        where the tokens are in a language model's vocabulary
parse.py        IDs in text or token ids, each with its item
"""

from semid.tokens.block import TokenTable, find_base
from semid.tokens.id_table import IDTable
from semid.tokens.parse import Parsed, find_in_token_ids, look_up
from semid.tokens.source import TokenBlock, TokenSource
from semid.tokens.templates import TEMPLATES, hint_on_bytes
from semid.tokens.vocabulary import MAX_SIZE, Found, Vocabulary

__all__ = [
    "MAX_SIZE",
    "TEMPLATES",
    "Found",
    "IDTable",
    "Parsed",
    "TokenBlock",
    "TokenSource",
    "TokenTable",
    "Vocabulary",
    "find_base",
    "find_in_token_ids",
    "hint_on_bytes",
    "look_up",
]
