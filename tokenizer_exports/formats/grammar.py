"""The catalog as a grammar, for engines that constrain decoding by grammars and take no logits processors.

Two dialects, each tested with its engine:

    ebnf    xgrammar 0.2.8: `root ::= Token(7, 9) n1 | ...`
    lark    llguidance 1.7 and 1.9: `start: t7 n1 | ...` with `t7: <[7]>`

A rule is a prefix with several continuations. Chains of single continuations are written inside the rule of their
parent, the last codes of a prefix are one terminal, and equal rules are written once. This keeps large grammars fast:
with one alternative per item, 10,000 items compile twelve times slower.

Terminals are token ids, so the language is exactly the catalog, token by token. Without token ids (no base) `ebnf` is
written as text, and the engine also accepts other tokenizations of an ID's text (`<`, `s`, `_a_12>`); `lark` names the
tokens instead, which is exact.

Not here: larger catalogs. semid's logits processors have no such limit and cost less per step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal

from semid.errors import ConfigError
from semid.runtime.checks import plural
from semid.tokens.vocabulary import Vocabulary
from semid.trie import Trie

__all__ = ["Dialect", "grammar_lines"]

Dialect = Literal["ebnf", "lark"]

# On one core xgrammar 0.2.8 compiles 20,000 items in 0.5 s (4 x 256 codes) to 5.5 s (20 x 2), 100,000 in 36 s; as text
# 10,000 in 1.7 s. llguidance takes 1 to 4 s for as many as it can.
MOST_ITEMS, MOST_ITEMS_AS_TEXT = 20_000, 10_000
# llguidance numbers symbols with 16 bits. A tree of N leaves has fewer than N branchings, each at most one rule.
MOST_SYMBOLS = 65_000
INSTEAD = "semid's logits processors have no such limit; or export for FlashRec or STATIC."
NAMED = re.compile(r"<[^<>\s\[\]]+>")  # what llguidance accepts as the name of a token


def grammar_lines(trie: Trie, vocabulary: Vocabulary, dialect: Dialect) -> Iterator[str]:
    """Yield the lines of a grammar that accepts exactly the IDs of `trie`, in token ids if the trie has a base.

    Parameters
    ----------
    trie
        The live items.
    vocabulary
        The names of the tokens, used if the trie has no base.
    dialect
        "ebnf" for xgrammar, "lark" for llguidance.

    Raises
    ------
    ConfigError
        There are more items than the engine can take, or Lark cannot name the tokens.

    >>> trie = Trie.from_codes([[0, 1], [0, 2], [1, 0]], sizes=(2, 3), base=10)
    >>> print("".join(grammar_lines(trie, Vocabulary([2, 3]), "ebnf")))
    # The 3 items of a catalog, in token ids from 10 to 14.
    root ::= Token(10) Token(13, 14) | Token(11) Token(12)
    <BLANKLINE>
    """
    _check_size(trie, dialect)
    writer = _Writer(trie, vocabulary, dialect)
    alternatives = writer.of_root()
    span = "as text" if trie.base is None else f"in token ids from {trie.base} to {trie.base + trie.offsets[-1] - 1}"
    if trie.base is None and dialect == "lark":
        span = "by the names of the tokens"
    yield f"{writer.comment} The {plural(len(trie), 'item')} of a catalog, {span}.\n"
    yield writer.rule(writer.root, alternatives)
    for body, name in writer.names.items():
        yield writer.rule(name, body)


def _check_size(trie: Trie, dialect: Dialect) -> None:
    if dialect == "lark":
        most = MOST_SYMBOLS - trie.offsets[-1]
        reason = "llguidance numbers the symbols of a grammar with 16 bits"
    elif trie.base is None:
        most = MOST_ITEMS_AS_TEXT
        reason = "xgrammar is slow to compile more of them as text; with --base or --tokenizer the limit is higher"
    else:
        most, reason = MOST_ITEMS, "xgrammar is slow to compile more; llguidance takes more, --to lark"
    if len(trie) > most:
        raise ConfigError(
            f"n_items={len(trie):,} should be at most {max(most, 0):,} for {dialect}: {reason}. {INSTEAD}"
        )


class _Writer:
    """Write the rules of one grammar; each distinct body gets one name."""

    def __init__(self, trie: Trie, vocabulary: Vocabulary, dialect: Dialect) -> None:
        self.trie, self.vocabulary, self.dialect = trie, vocabulary, dialect
        self.root, self.arrow, self.comment = ("root", " ::= ", "#") if dialect == "ebnf" else ("start", ": ", "//")
        self.names: dict[str, str] = {}  # body -> name, in the order of their first use

    def rule(self, name: str, body: str) -> str:
        return f"{name}{self.arrow}{body}\n"

    def of_root(self) -> str:
        """Return the body of the root, after making all other rules, deepest level first."""
        codes, ptr, starts = self.trie.codes.tolist(), self.trie.ptr.tolist(), self.trie.level_starts
        last = self.trie.n_levels - 1
        below: dict[int, str] = {}  # node -> what may follow it, as one part of a sequence
        for level in range(last, -1, -1):
            above = {}
            for node in range(starts[level], starts[level + 1]):
                children = range(ptr[node], ptr[node + 1])
                if level == last:
                    above[node] = self.terminal(level, codes[children.start : children.stop])
                    continue
                parts = [f"{self.terminal(level, [codes[child]])} {below[child]}" for child in children]
                body = " | ".join(parts)
                above[node] = body if level == 0 or len(parts) == 1 else self.named(body, "n")
            below = above
        return below[0]

    def named(self, body: str, kind: str) -> str:
        return self.names.setdefault(body, f"{kind}{len(self.names)}")

    def terminal(self, level: int, codes: list[int]) -> str:
        """Return a part of a sequence that matches any one of these codes."""
        if self.trie.base is not None:
            token_ids = [str(self.trie.base + self.trie.offsets[level] + code) for code in codes]
            if self.dialect == "ebnf":
                return f"Token({', '.join(token_ids)})"
            # Every mention of a token costs llguidance a symbol, a rule only one.
            return self.named(f"<[{','.join(token_ids)}]>", "t")
        tokens = [self.vocabulary.token(level, code) for code in codes]
        if self.dialect == "ebnf":
            texts = [json.dumps(token, ensure_ascii=False) for token in tokens]
            return texts[0] if len(texts) == 1 else f"({' | '.join(texts)})"
        strange = next((token for token in tokens if not NAMED.fullmatch(token)), None)
        if strange:
            raise ConfigError(f"token {strange!r}: Lark can only name tokens like <s_a_1>. Give --base or --tokenizer.")
        parts = [self.named(token, "t") for token in tokens]
        return parts[0] if len(parts) == 1 else self.named(" | ".join(parts), "n")
