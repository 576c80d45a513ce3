"""TokenArtifact: what semantic IDs and cluster tokens have in common as artifacts, whatever else they hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from semid.artifact.manifest import fingerprint
from semid.ledger.ledger import Ledger
from semid.tokens.vocabulary import Vocabulary

__all__ = ["TokenArtifact"]


class TokenArtifact(ABC):
    """Tokens that a folder keeps and that can be added to a language model (`semid.tokens.TokenSource`)."""

    kind: ClassVar[str]  # one of `semid.artifact.kinds`
    vocabulary: Vocabulary
    ledger: Ledger | None  # the items under the codes; None where the codes are not of items
    provenance: Mapping[str, Any]

    @property
    @abstractmethod
    def level_vectors(self) -> Sequence[npt.NDArray[np.floating]] | None:
        """The vectors of the codes: L arrays float [K, d], with d = 0 for a level without any; None for no vectors."""

    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """Return what `semid.json` says besides the names and checksums of files and arrays."""

    @abstractmethod
    def parts(self) -> list[dict[str, np.ndarray]]:
        """Return all arrays by name, one dict for each data file."""

    @abstractmethod
    def tsv_tables(self) -> dict[str, Iterable[str]]:
        """Return the tables for people: file name -> lines."""

    @cached_property
    def fingerprint(self) -> str:
        """`sha256:...` over everything but the provenance, as in `semid.json`. Reads all arrays if not opened."""
        return fingerprint(self.manifest(), {name: one for part in self.parts() for name, one in part.items()})

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each level."""
        return self.vocabulary.sizes

    @property
    def base(self) -> int | None:
        """Token id of the first code in the language model whose folder this artifact lies in; None if in none."""
        base = self.provenance.get("base")
        return base if type(base) is int and base >= 0 else None
