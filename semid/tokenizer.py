"""SemanticIDTokenizer: the object people hold. Item ids in, semantic IDs out, and back.

    ids = SemanticIDTokenizer.fit("items.jsonl")          # learn
    ids.save_pretrained("my-sid")                          # keep
    ids = SemanticIDTokenizer.from_pretrained("my-sid")    # open again: NumPy alone, memory-mapped
    ids.tokens(["B1"]), ids.decode("<s_a_1><s_b_2>...")    # look up

Looking up never computes anything: the ledger holds each item's codes for good. Only `fit`, `embed` and
`encode_vectors` do work, and import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.artifact import kinds
from semid.artifact import store as artifact
from semid.artifact.manifest import fingerprint
from semid.config import SemanticIDConfig
from semid.data.strings import StringChain
from semid.errors import ArtifactError, ConfigError, InputError
from semid.ledger.ledger import Ledger
from semid.tokens.block import TokenTable
from semid.tokens.parse import Parsed, find_in_token_ids, look_up
from semid.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from semid.data.interactions import Histories
    from semid.data.items import Items
    from semid.encoders.lexical import LexicalEncoder
    from semid.encoders.neural import NeuralEncoder
    from semid.evaluation.quality import Quality
    from semid.pipeline.add import Added
    from semid.pipeline.signals import Guidance
    from semid.quantize.codebooks import Codebooks

__all__ = ["Parsed", "SemanticIDTokenizer"]

ENCODER = "item_encoder."
STATISTICS = "fit."
LEARN = "Learn IDs with: semid fit items.jsonl -o DIR"
BLOCK = 1 << 16  # items written as text at once
UNLEARNED = "none"  # the encoder's kind, where IDs come from elsewhere: no config, encoder or codebooks then


class SemanticIDTokenizer:
    """A catalog's semantic IDs: made by `fit` or `from_pretrained`.

    >>> items = [{"id": str(n), "title": f"{color} {thing}"} for n, (color, thing) in enumerate(
    ...     (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
    >>> ids = SemanticIDTokenizer.fit(items, levels=2, codebook_size=4)
    >>> ids.decode(ids.tokens(["3", "7"]))
    ['3', '7']
    """

    def __init__(
        self,
        *,
        config: SemanticIDConfig | None,
        vocabulary: Vocabulary,
        ledger: Ledger,
        codebooks: Codebooks | Callable[[], Codebooks] | None,
        encoder_state: tuple[dict[str, np.ndarray], dict[str, Any]],
        provenance: dict[str, Any],
        text_fields: Sequence[str] | None = None,
        fit_statistics: dict[str, np.ndarray] | None = None,
        history: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.ledger = ledger
        self.provenance = provenance
        self.text_fields = None if text_fields is None else list(text_fields)
        self.fit_statistics = dict(fit_statistics or {})
        self.history = [{"generation": 0, "added": len(ledger)}] if history is None else list(history)
        self._codebooks = codebooks
        self.encoder_state = encoder_state

    # ---- making, keeping, opening

    @classmethod
    def fit(
        cls,
        items: Any,
        config: SemanticIDConfig | None = None,
        *,
        embeddings: Any = None,
        id_field: str = "id",
        progress: bool = False,
        guidance: Guidance | None = None,
        interactions: Any = None,
        memory: str | int | None = None,
        **choices: Any,
    ) -> SemanticIDTokenizer:
        """Learn semantic IDs for a catalog.

        Parameters
        ----------
        items : path, "-", `datasets.Dataset`, iterable of dicts, or Items
            See `semid.read_items`.
        config : SemanticIDConfig, or its fields as keywords
        embeddings : path of a .npy or .safetensors file, or array [N, D], in the order of the items
            Used instead of an encoder.
        progress : bool
            Show progress on stderr.
        guidance : semid.pipeline.signals.Guidance, optional
            What IDs should agree with besides the text: behavior, a language model.
        interactions : path or Interactions, optional
            What the guidance learns from.
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
        return cls(
            **fit(
                items,
                config,
                embeddings=embeddings,
                id_field=id_field,
                progress=progress,
                guidance=guidance,
                interactions=interactions,
                memory=memory,
            )
        )

    def save_pretrained(
        self, folder: str | Path, *, force: bool = False, tables: Mapping[str, Iterable[str]] | None = None
    ) -> str:
        """Write the artifact folder, in one step as readers see it; returns its fingerprint.

        `tables` are further .tsv files for people: name -> lines. To change an artifact where it lies, without
        writing all of it again, see `semid.pipeline.update`.

        Raises OutputExistsError if the folder holds something, unless `force` allows to replace an artifact.
        """
        every = self.people(range(len(self.ledger.segments))) | dict(tables or {})
        return artifact.save(folder, self.manifest(), *self.parts(), tables=every, force=force)

    def parts(self) -> list[dict[str, np.ndarray]]:
        """All arrays, by what stands in one file: what was learned, then each segment of the ledger."""
        arrays = dict(self.codebooks.arrays()) if self.is_learned else {}
        arrays |= {ENCODER + name: array for name, array in self.encoder_state[0].items()} | self.fit_statistics
        return [arrays, *self.ledger.parts()]

    @cached_property
    def fingerprint(self) -> str:
        """`sha256:...`, as in the artifact: names these IDs wherever they are kept. Reads all of them if not opened."""
        return fingerprint(self.manifest(), {name: one for part in self.parts() for name, one in part.items()})

    def manifest(self) -> dict[str, Any]:
        """What `semid.json` says besides names and checksums of files and arrays."""
        return {
            "kind": kinds.IDS,
            # Where it was learned is not what was learned.
            "config": None if self.config is None else self.config.to_dict() | {"device": "auto"},
            "encoder": self.encoder_state[1],
            "vocabulary": self.vocabulary.to_dict(),
            "text_fields": self.text_fields,
            "counts": {"items": len(self), "live": self.ledger.n_live},
            "generation": self.ledger.last_generation,
            "history": self.history,
            "provenance": self.provenance,
        }

    def people(self, parts: Iterable[int]) -> dict[str, Iterable[str]]:
        """The tables for people of some parts of the ledger: file name -> lines."""
        tables = {}
        for number in parts:
            segment = self.ledger.segments[number]
            if number and not len(segment):
                continue  # a change that brought no rows
            texts = segment.texts if segment.texts is not None else [""] * len(segment)
            tokens = self._token_texts(segment.codes)
            tables[artifact.people_table(number)] = artifact.people_lines(segment.item_ids, tokens, texts)
        return tables

    def _token_texts(self, codes: npt.NDArray[np.uint16]) -> Iterator[str]:
        for start in range(0, len(codes), BLOCK):
            yield from self.vocabulary.texts(codes[start : start + BLOCK])

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, revision: str | None = None) -> SemanticIDTokenizer:
        """Open an artifact: a folder, or the name of a Hub repository ("user/name").

        Raises ArtifactError if it is missing, damaged, or from a newer semid; InputError if it holds something else,
        such as tokens of users.
        """
        path = Path(folder)
        if not path.exists() and str(folder).count("/") == 1 and not str(folder).startswith((".", "/")):
            from semid.artifact.hub import fetch

            path = fetch(str(folder), revision=revision)
        return cls.from_artifact(artifact.load(path))

    @classmethod
    def from_artifact(cls, loaded: artifact.Artifact) -> SemanticIDTokenizer:
        """The tokenizer of a loaded folder; InputError if it is of another kind, ArtifactError if it is damaged."""
        kinds.check_kind(loaded.folder, loaded.manifest, kinds.IDS)
        try:
            ids = cls._from_artifact(loaded)
        except (KeyError, TypeError, ConfigError, InputError) as error:
            path = loaded.folder
            raise ArtifactError(
                f"{path / 'semid.json'}: {error}: not what this semid writes. Run semid verify {path}."
            ) from error
        ids.__dict__["fingerprint"] = loaded.fingerprint  # known without reading the arrays
        return ids

    @classmethod
    def _from_artifact(cls, loaded: artifact.Artifact) -> SemanticIDTokenizer:
        manifest, arrays = loaded.manifest, loaded.arrays
        if not isinstance(manifest["encoder"], dict) or "kind" not in manifest["encoder"]:
            raise ConfigError(f"encoder={manifest['encoder']!r:.200} should be an object with a kind")
        vocabulary = Vocabulary.from_dict(manifest["vocabulary"])
        ledger = Ledger.from_arrays(arrays)
        if ledger.n_levels != vocabulary.n_levels:
            raise ConfigError(f"codes have {ledger.n_levels} levels, the vocabulary {vocabulary.n_levels}")

        def codebooks() -> Codebooks:
            from semid.quantize.codebooks import Codebooks

            return Codebooks.from_arrays(arrays)

        learned = manifest["encoder"]["kind"] != UNLEARNED
        encoder_arrays = {name[len(ENCODER) :]: arrays[name] for name in arrays if name.startswith(ENCODER)}
        statistics = {name: arrays[name] for name in arrays if name.startswith(STATISTICS)}
        provenance = manifest.get("provenance")  # no checksum guards it
        return cls(
            config=SemanticIDConfig.from_dict(manifest["config"]) if learned else None,
            vocabulary=vocabulary,
            ledger=ledger,
            codebooks=codebooks if learned else None,
            encoder_state=(encoder_arrays, manifest["encoder"]),
            provenance=provenance if isinstance(provenance, dict) else {},
            text_fields=_list_of(str, manifest, "text_fields"),
            fit_statistics=statistics,
            history=_list_of(dict, manifest, "history"),
        )

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Upload the artifact with a card of its own to the Hugging Face Hub; returns the commit's address."""
        from semid.artifact.hub import push

        return push(self, repo_id, private=private, token=token)

    def add(self, items: Any, **choices: Any) -> tuple[SemanticIDTokenizer, Added]:
        """The same with new items, each with the nearest free ID, and a report: see `semid.pipeline.add.add`.

        In memory: for an artifact in a folder see `semid.pipeline.update`.
        """
        from semid.pipeline.add import add

        return add(self, items, **choices)

    def retire(self, item_ids: Iterable[str], *, date: str | None = None) -> SemanticIDTokenizer:
        """The same with these items retired: still decoded, no longer generated, their IDs never given out again.

        UnknownIDError with near matches for an id that the catalog does not hold. Items that are retired already
        stay as they are; if no other is named, the result is this tokenizer itself.
        """
        ledger = self.ledger.retire(item_ids)
        if ledger is self.ledger:
            return self
        noted = {"generation": ledger.last_generation, "retired": self.ledger.n_live - ledger.n_live}
        return self.changed(ledger, noted, date=date)

    def changed(self, ledger: Ledger, noted: dict[str, Any], *, date: str | None = None) -> SemanticIDTokenizer:
        """The same with another table of items; `noted` says in the history what changed, `date` when, if at all.

        A date is no part of the fingerprint.
        """
        provenance = self.provenance
        if date is not None:
            dates = provenance.get("dates")
            dates = dates if isinstance(dates, dict) else {}
            provenance = provenance | {"dates": dates | {str(noted["generation"]): date}}
        return SemanticIDTokenizer(
            config=self.config,
            vocabulary=self.vocabulary,
            ledger=ledger,
            codebooks=self._codebooks,
            encoder_state=self.encoder_state,
            provenance=provenance,
            text_fields=self.text_fields,
            fit_statistics=self.fit_statistics,
            history=[*self.history, noted],
        )

    # ---- looking up

    def __len__(self) -> int:
        """N, retired items included."""
        return len(self.ledger)

    @property
    def item_ids(self) -> StringChain:
        """All item ids, in the order of the table."""
        return self.ledger.item_ids

    @property
    def texts(self) -> StringChain | None:
        """The items' texts, in the order of the table, or None where they were not kept."""
        return self.ledger.texts

    @property
    def codes(self) -> npt.NDArray[np.uint16]:
        """All codes, uint16 [N, L], in the order of the table."""
        return self.ledger.codes

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each level."""
        return tuple(self.vocabulary.sizes)

    @property
    def base(self) -> int | None:
        """Token id of the first code in the language model that the artifact lies beside; None if in none."""
        base = self.provenance.get("base")
        return base if type(base) is int and base >= 0 else None

    def encode(self, item_ids: str | Iterable[str]) -> npt.NDArray[np.uint16]:
        """Codes of items: uint16 [M, L], or [L] for a single id.

        Raises UnknownIDError with near matches for an id that the catalog does not hold.
        """
        one = isinstance(item_ids, str)
        codes = self.ledger.codes_of(self.ledger.rows_of([item_ids] if one else item_ids))
        return codes[0] if one else codes

    def tokens(self, item_ids: str | Iterable[str]) -> str | list[str]:
        """Semantic IDs of items as text: `"<s_a_12><s_b_201>..."` for each; a single string for a single id."""
        codes = self.encode(item_ids)
        return self.vocabulary.text(codes) if codes.ndim == 1 else self.vocabulary.texts(codes)

    def decode(self, ids: str | Sequence[str] | npt.NDArray[np.integer]) -> str | None | list[str | None]:
        """Item ids of semantic IDs: of a text, of several, or of codes int [M, L]. None where no item has the ID.

        Each text must be one well-formed ID and nothing else; use `parse` for IDs inside other text. Retired
        items are decoded too.
        """
        if isinstance(ids, str):
            return self.decode([ids])[0]
        if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu":
            codes = ids
        else:
            codes = np.array([self._codes_of(text) for text in ids], np.int64).reshape(-1, len(self.sizes))
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

    def _codes_of(self, text: str) -> Sequence[int]:
        """Codes of a text that is one ID; otherwise codes that no item has."""
        found = self.vocabulary.find(text)
        if len(found) == 1 and found[0].codes is not None and found[0].text == text.strip():
            return found[0].codes
        return [-1] * len(self.sizes)

    # ---- computing

    @property
    def is_learned(self) -> bool:
        """Whether these IDs were learned here; imported ones have neither codebooks nor an encoder nor a config."""
        return self._codebooks is not None

    @property
    def encoder_kind(self) -> str:
        """How items became vectors: "lexical", "neural", "vectors" (ready ones), or "none" (imported IDs)."""
        return self.encoder_state[1]["kind"]

    @cached_property
    def codebooks(self) -> Codebooks:
        """The codebooks, read from the artifact when first asked for; ConfigError if the IDs were imported."""
        if self._codebooks is None:
            raise ConfigError(
                f"These IDs were imported from {self.imported_from}, which says what codes each item has and no more: "
                f"there are no codebooks. {LEARN}"
            )
        return self._codebooks() if callable(self._codebooks) else self._codebooks

    @property
    def imported_from(self) -> str | None:
        """The name of the file that IDs which were not learned here come from; None for learned ones."""
        if self.is_learned:
            return None
        name = self.provenance.get("imported_from")
        return name if isinstance(name, str) else "elsewhere"

    def embed(self, items: Items, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Vectors of items, float32 [N, D], by the encoder that the IDs were learned with.

        Raises ConfigError if that was not an encoder of semid, or if the IDs were imported.
        """
        if not self.is_learned:
            raise ConfigError(
                f"These IDs were imported from {self.imported_from}, which does not say how items become vectors: "
                f"there is no encoder. {LEARN}"
            )
        if self.encoder_state[1]["kind"] == "vectors":
            raise ConfigError(
                "These IDs were learned from ready vectors, so semid cannot embed new items. "
                "Embed them as before, and give the vectors (--embeddings, embeddings=), or use encode_vectors."
            )
        return self._encoder.transform(items, progress=progress)

    @cached_property
    def _encoder(self) -> LexicalEncoder | NeuralEncoder:
        from semid.encoders import encoder_from_state

        return encoder_from_state(*self.encoder_state)

    def encode_vectors(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
        """Nearest codes of vectors [N, D]: int32 [N, L]. Not IDs: they may belong to other items.

        Raises ConfigError if the IDs were imported.
        """
        beam = 1 if self.config is None else self.config.encode_beam
        return self.codebooks.encode(np.asarray(vectors), beam=beam)

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
        if vectors is not None and self.is_learned:
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


def _list_of(kind: type, manifest: Mapping[str, Any], name: str) -> list | None:
    """An entry that artifacts of format 1 do not have."""
    found = manifest.get(name)
    if found is not None and not (isinstance(found, list) and all(isinstance(one, kind) for one in found)):
        raise ConfigError(f"{name}={found!r:.200} should be a list of {kind.__name__}")
    return found
