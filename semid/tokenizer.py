"""SemanticIDTokenizer: the object people hold. Item ids in, semantic IDs out, and back.

    ids = SemanticIDTokenizer.fit("items.jsonl")          # learn
    ids.save_pretrained("my-sid")                          # keep
    ids = SemanticIDTokenizer.from_pretrained("my-sid")    # open again: NumPy alone, memory-mapped
    ids.tokens(["B1"]), ids.decode("<s_a_1><s_b_2>...")    # look up

Looking up never computes anything: the ledger holds each item's codes for good. Only `fit`, `embed` and
`encode_vectors` do work, and import what they need when they are called. What a tokenizer holds is in `state.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt

from semid.artifact import store as artifact
from semid.config import SemanticIDConfig
from semid.errors import ConfigError
from semid.state import TokenizerState
from semid.tokens.block import TokenTable
from semid.tokens.id_table import IDTable
from semid.tokens.parse import Parsed, find_in_token_ids, look_up

if TYPE_CHECKING:
    from semid.data.interactions import Histories
    from semid.evaluation.quality import Quality
    from semid.pipeline.add import Added
    from semid.pipeline.signals import Signals

__all__ = ["Parsed", "SemanticIDTokenizer"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SemanticIDTokenizer(TokenizerState, IDTable):
    """A catalog's semantic IDs: made by `fit` or `from_pretrained`.

    >>> items = [{"id": str(n), "title": f"{color} {thing}"} for n, (color, thing) in enumerate(
    ...     (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
    >>> ids = SemanticIDTokenizer.fit(items, levels=2, codebook_size=4)
    >>> ids.decode(ids.tokens(["3", "7"]))
    ['3', '7']
    """

    def __repr__(self) -> str:
        sizes = set(self.sizes)
        shape = f"{len(self.sizes)}x{self.sizes[0]}" if len(sizes) == 1 else "x".join(map(str, self.sizes))
        made = self.config.method if self.config is not None else f"from {self.imported_from}"
        return f"SemanticIDTokenizer({len(self)} items, {shape}, {made}, {self.fingerprint[:15]}…)"

    def __contains__(self, item_id: object) -> bool:
        """Whether the catalog holds an item, live or retired."""
        return isinstance(item_id, str) and bool(self.ledger.find_rows([item_id])[0] >= 0)

    def __iter__(self) -> Iterator[str]:
        """All item ids, in the order of the table."""
        return iter(self.item_ids)

    # ---- making, keeping, opening

    @classmethod
    def fit(
        cls,
        items: Any,
        config: SemanticIDConfig | None = None,
        *,
        embeddings: Any = None,
        id_field: str = "id",
        signals: Signals | None = None,
        interactions: Any = None,
        memory: str | int | None = None,
        **choices: Any,
    ) -> Self:
        """Learn semantic IDs for a catalog.

        Parameters
        ----------
        items : path, "-", `datasets.Dataset`, iterable of dicts, or Items
            See `semid.read_items`. A `semid.files.RecordFile` is a path together with how to read it.
        config : SemanticIDConfig, or its fields as keywords
        embeddings : path of a file that `semid.encoders.read_vectors` reads, or array [N, D] in the order of the items
            Used instead of an encoder.
        signals : semid.pipeline.signals.Signals, optional
            What IDs should agree with besides the text: behavior, a language model.
        interactions : path or Interactions, optional
            User histories that the signals are learned from.
        memory : "4GB" or bytes
            What the process may hold; by default 60 % of the machine's memory.

        Raises
        ------
        InputError, ConfigError, CapacityError
            Before anything is learned, with the place and the fix.
        """
        from semid.pipeline.fit import fit

        if config is not None and choices:
            raise ConfigError("config and single choices were both given. Put the choices into the config.")
        config = config or SemanticIDConfig.from_dict(choices)
        state = fit(
            items,
            config,
            embeddings=embeddings,
            id_field=id_field,
            signals=signals,
            interactions=interactions,
            memory=memory,
        )
        return cls.of(state)

    def save_pretrained(
        self, folder: str | Path, *, force: bool = False, tables: Mapping[str, Iterable[str]] | None = None
    ) -> str:
        """Write the artifact folder, in one step as readers see it; returns its fingerprint.

        `tables` are further .tsv files for people: name -> lines. To change an artifact where it lies, without
        writing all of it again, see `semid.pipeline.update`.

        Raises OutputExistsError if the folder holds something, unless `force` allows to replace an artifact.
        """
        every = self.tsv_tables() | dict(tables or {})
        return artifact.save(folder, self.manifest(), *self.parts(), tables=every, force=force)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, revision: str | None = None) -> Self:
        """Open an artifact: a folder, or the name of a Hub repository ("user/name").

        Raises ArtifactError if it is missing, damaged, or from a newer semid; InputError if it holds something else,
        such as tokens of users.
        """
        path = Path(folder)
        if not path.exists() and str(folder).count("/") == 1 and not str(folder).startswith((".", "/")):
            from semid.artifact.hub import fetch

            path = fetch(str(folder), revision=revision)
        return cls.from_artifact(artifact.load(path))

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Upload the artifact with a card of its own to the Hugging Face Hub; returns the commit's address."""
        from semid.artifact.hub import push
        from semid.evaluation.card import model_card

        def text(name: str) -> str:
            return model_card(self, name, self.quality())

        return push(self.save_pretrained, text, repo_id, private=private, token=token)

    def add(self, items: Any, **choices: Any) -> tuple[Self, Added]:
        """Return a tokenizer with new items, each with the nearest free ID, and a report: see `semid.pipeline.add.add`.

        In memory: for an artifact in a folder see `semid.pipeline.update`.
        """
        from semid.pipeline.add import add

        return add(self, items, **choices)

    def retire(self, item_ids: Iterable[str], *, date: str | None = None) -> Self:
        """Return a tokenizer with these items retired: still decoded, no longer generated, their IDs never reissued.

        UnknownIDError with near matches for an id that the catalog does not hold. Items that are retired already
        stay as they are; if no other is named, the result is this tokenizer itself.
        """
        from semid.pipeline.update import retire_items

        return retire_items(self, item_ids, date=date)

    # ---- looking up

    @overload
    def decode(self, ids: str) -> str | None: ...  # type: ignore[overload-overlap]  # a str is a sequence of str too

    @overload
    def decode(self, ids: Sequence[str] | npt.NDArray[np.integer]) -> list[str | None]: ...

    def decode(self, ids: str | Sequence[str] | npt.NDArray[np.integer]) -> str | None | list[str | None]:
        """Return the item ids of semantic IDs, given as a text, several texts, or codes int [M, L]; None for no item.

        Each text must be one well-formed ID and nothing else; use `parse` for IDs inside other text. Retired
        items are decoded too.
        """
        if isinstance(ids, str):
            return self.decode([ids])[0]
        is_codes = isinstance(ids, np.ndarray) and ids.dtype.kind in "iu"
        codes = ids if is_codes else self.vocabulary.codes_of_texts(ids)
        rows = self.ledger.rows_of_codes(codes)
        return [None if row < 0 else self.ledger.item_ids[row] for row in rows.tolist()]

    def parse(
        self,
        text_or_token_ids: str | Sequence[int] | npt.NDArray[np.integer],
        *,
        base: int | None = None,
        tokenizer: TokenTable | None = None,
    ) -> list[Parsed]:
        """Every ID in a text or in token ids, in order, with its item.

        Malformed and unknown IDs are reported, never guessed. Prefer the ids that a model generated to their
        text: some tokenizers write blanks between tokens, or drop some, when they decode.

        Parameters
        ----------
        text_or_token_ids
            Token ids are one sequence: a list, an array or a tensor [T]. `start` and `end` are then places in it.
        base, tokenizer
            For token ids: the id of the first code, or the language model's tokenizer, which is searched for
            all tokens at every call. With neither, the one that `semid extend` noted in the artifact.

        Raises
        ------
        ConfigError
            Token ids, and it is not known where the tokens of the IDs begin; or `tokenizer` lacks them.
        InputError
            Neither a text nor one sequence of integers.
        """
        if isinstance(text_or_token_ids, str):
            found = self.vocabulary.find(text_or_token_ids)
        else:
            if base is None and tokenizer is None:
                base = self.base
            found = find_in_token_ids(self.vocabulary, text_or_token_ids, base, tokenizer)
        return look_up(found, self.ledger)

    # ---- judging

    def quality(
        self,
        *,
        histories: Histories | None = None,
        vectors: npt.NDArray[np.floating] | None = None,
    ) -> Quality:
        """How good the IDs are: measured now from the table, with the figures of the fit that need its vectors.

        Parameters
        ----------
        histories : `read_interactions(path).map_to(ids.item_ids)`, adds `sequence_lift`
        vectors : float [N, D] in the order of `item_ids`; measures `neighbor_recall` and distortion again
        """
        from semid.evaluation.metrics import evaluate
        from semid.evaluation.quality import Distortion, Quality

        distortion = raw_codes = None
        if vectors is not None and self.is_fitted:
            raw_codes = self.encode_vectors(vectors)
            distortion = Distortion.of(
                vectors, final=self.codebooks.reconstruct(self.codes), raw=self.codebooks.reconstruct(raw_codes)
            )
        now = evaluate(
            self.codes,
            sizes=self.sizes,
            raw_codes=raw_codes,
            distortion=distortion,
            texts=self.texts,
            vectors=vectors,
            histories=histories,
        )
        kept = Quality.kept_figures(self.provenance.get("quality"))
        missing = {f.name: kept[f.name] for f in fields(now) if getattr(now, f.name) is None and f.name in kept}
        return replace(now, **missing)
