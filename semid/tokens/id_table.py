"""Codes and tokens of ids: a ledger read through the vocabulary that its codes are written with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from semid.ledger.ledger import Ledger
from semid.tokens.vocabulary import Vocabulary

__all__ = ["IDTable"]


class IDTable:
    """What `SemanticIDTokenizer` and the two tables of `ClusterTokens` have in common.

    >>> table = IDTable()
    >>> table.ledger, table.vocabulary = Ledger.create(["B1", "B2"], [[0, 1], [1, 0]]), Vocabulary([2, 2])
    >>> table.encode("B2").tolist(), table.tokens(["B1", "B2"])
    ([1, 0], ['<s_a_0><s_b_1>', '<s_a_1><s_b_0>'])
    """

    ledger: Ledger
    vocabulary: Vocabulary

    def encode(self, ids: str | Iterable[str]) -> npt.NDArray[np.uint16]:
        """Return the codes of ids: uint16 [M, L], or [L] for a single id.

        Raises
        ------
        UnknownIDError
            An id is not in the table; the message lists similar ones.
        """
        one = isinstance(ids, str)
        codes = self.ledger.codes_of(self.ledger.rows_of([ids] if isinstance(ids, str) else ids))
        return codes[0] if one else codes

    def tokens(self, ids: str | Iterable[str]) -> str | list[str]:
        """Return the tokens of ids as text, such as `<s_a_12><s_b_201>`: a list, or a string for a single id.

        Raises
        ------
        UnknownIDError
            As `encode`.
        """
        codes = self.encode(ids)
        return self.vocabulary.text(codes) if codes.ndim == 1 else self.vocabulary.texts(codes)
