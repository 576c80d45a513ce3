"""SemanticIDTokenizer: the object people hold. Item ids in, semantic IDs out, and back.

    ids = SemanticIDTokenizer.fit("items.jsonl")          # learn
    ids.save_pretrained("my-sid")                          # keep
    ids = SemanticIDTokenizer.from_pretrained("my-sid")    # open again: NumPy alone, memory-mapped
    ids.tokens(["B1"]), ids.decode("<s_a_1><s_b_2>...")    # look up

Looking up never computes anything: the ledger holds each item's codes for good. Only `fit`, `embed` and
`encode_vectors` do work, and import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid import artifact
from semid.assign.ledger import Ledger
from semid.config import SemanticIDConfig
from semid.errors import ArtifactError, ConfigError, InputError
from semid.strings import PackedStrings
from semid.token_block import TokenTable, find_base
from semid.vocabulary import Found, Vocabulary

if TYPE_CHECKING:
    from semid.catalog import Items
    from semid.interactions import Histories
    from semid.quality import Quality
    from semid.quantize.codebooks import Codebooks

__all__ = ["Parsed", "SemanticIDTokenizer"]

KIND = "semantic-id tokenizer"
ENCODER = "item_encoder."
LEARN = "Learn IDs with: semid fit items.jsonl -o DIR"
UNLEARNT = "none"  # the encoder's kind, where IDs come from elsewhere: no config, encoder or codebooks then


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


class SemanticIDTokenizer:
    """A catalogue's semantic IDs: made by `fit` or `from_pretrained`.

    >>> items = [{"id": str(n), "title": f"{colour} {thing}"} for n, (colour, thing) in enumerate(
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
        texts: PackedStrings | None,
        provenance: dict[str, Any],
    ) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.ledger = ledger
        self.texts = texts
        self.provenance = provenance
        self._codebooks = codebooks
        self._encoder_state = encoder_state

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
        **choices: Any,
    ) -> SemanticIDTokenizer:
        """Learn semantic IDs for a catalogue.

        Parameters
        ----------
        items : path, "-", `datasets.Dataset`, iterable of dicts, or Items
            See `semid.read_items`.
        config : SemanticIDConfig, or its fields as keywords
        embeddings : path of a .npy or .safetensors file, or array [N, D], in the order of the items
            Used instead of an encoder.
        progress : bool
            Show progress on stderr.

        Raises
        ------
        InputError, ConfigError, CapacityError
            Before anything is learnt, with the place and the fix.
        """
        from semid.fitting import fit

        if config is not None and choices:
            raise ConfigError("config and single choices were both given. Put the choices into the config.")
        config = config or SemanticIDConfig.from_dict(choices)
        return cls(**fit(items, config, embeddings=embeddings, id_field=id_field, progress=progress))

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> str:
        """Write the artefact folder, in one step as readers see it; returns its fingerprint.

        Raises OutputExistsError if the folder holds something, unless `force` allows to replace an artefact.
        """
        arrays = dict(self.codebooks.arrays()) if self.is_learnt else {}
        arrays |= self.ledger.arrays()
        encoder_arrays, encoder_meta = self._encoder_state
        arrays |= {ENCODER + name: array for name, array in encoder_arrays.items()}
        if self.texts is not None:
            arrays |= {"text.data": self.texts.data, "text.offsets": self.texts.offsets}
        manifest = {
            "kind": KIND,
            # Where it was learnt is not what was learnt.
            "config": None if self.config is None else self.config.to_dict() | {"device": "auto"},
            "encoder": encoder_meta,
            "vocabulary": self.vocabulary.to_dict(),
            "counts": {"items": len(self), "live": int(self.ledger.live.sum())},
            "generation": self.ledger.last_generation,
            "provenance": self.provenance,
        }
        texts = self.texts if self.texts is not None else [""] * len(self)
        people = artifact.people_lines(self.ledger.item_ids, self.vocabulary.texts(self.ledger.codes), texts)
        return artifact.save(folder, manifest, arrays, people=people, force=force)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, revision: str | None = None) -> SemanticIDTokenizer:
        """Open an artefact: a folder, or the name of a Hub repository ("user/name").

        Raises ArtifactError if it is missing, damaged, of another kind, or from a newer semid.
        """
        path = Path(folder)
        if not path.exists() and str(folder).count("/") == 1 and not str(folder).startswith((".", "/")):
            from semid.hub import fetch

            path = fetch(str(folder), revision=revision)
        loaded = artifact.load(path)
        try:
            return cls._from_artifact(loaded)
        except (KeyError, TypeError, ConfigError, InputError) as error:
            raise ArtifactError(
                f"{path / 'semid.json'}: {error}: not what this semid writes. Run semid verify {path}."
            ) from error

    @classmethod
    def _from_artifact(cls, loaded: artifact.Artifact) -> SemanticIDTokenizer:
        manifest, arrays = loaded.manifest, loaded.arrays
        if manifest.get("kind") != KIND:
            raise ConfigError(f"kind={manifest.get('kind')!r} should be {KIND!r}")
        if not isinstance(manifest["encoder"], dict) or "kind" not in manifest["encoder"]:
            raise ConfigError(f"encoder={manifest['encoder']!r:.200} should be an object with a kind")
        vocabulary = Vocabulary.from_dict(manifest["vocabulary"])
        ledger = Ledger.from_arrays(arrays)
        if ledger.n_levels != vocabulary.n_levels:
            raise ConfigError(f"codes have {ledger.n_levels} levels, the vocabulary {vocabulary.n_levels}")

        def codebooks() -> Codebooks:
            from semid.quantize.codebooks import Codebooks

            return Codebooks.from_arrays(arrays)

        learnt = manifest["encoder"]["kind"] != UNLEARNT
        encoder_arrays = {name[len(ENCODER) :]: arrays[name] for name in arrays if name.startswith(ENCODER)}
        texts = PackedStrings(arrays["text.data"], arrays["text.offsets"]) if "text.data" in arrays else None
        provenance = manifest.get("provenance")  # no checksum guards it
        return cls(
            config=SemanticIDConfig.from_dict(manifest["config"]) if learnt else None,
            vocabulary=vocabulary,
            ledger=ledger,
            codebooks=codebooks if learnt else None,
            encoder_state=(encoder_arrays, manifest["encoder"]),
            texts=texts,
            provenance=provenance if isinstance(provenance, dict) else {},
        )

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Upload the artefact with a card of its own to the Hugging Face Hub; returns the commit's address."""
        from semid.hub import push

        return push(self, repo_id, private=private, token=token)

    # ---- looking up

    def __len__(self) -> int:
        """N, retired items included."""
        return len(self.ledger)

    @property
    def item_ids(self) -> PackedStrings:
        """All item ids, in the order of the table."""
        return self.ledger.item_ids

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
        """Token id of the first code in the language model that the artefact lies beside; None if in none."""
        base = self.provenance.get("base")
        return base if type(base) is int and base >= 0 else None

    def encode(self, item_ids: str | Iterable[str]) -> npt.NDArray[np.uint16]:
        """Codes of items: uint16 [M, L], or [L] for a single id.

        Raises UnknownIDError with near matches for an id that the catalogue does not hold.
        """
        one = isinstance(item_ids, str)
        codes = self.ledger.codes[self.ledger.rows_of([item_ids] if one else item_ids)]
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
            all tokens at every call. With neither, the one that `semid extend` noted in the artefact.

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
            found = self._find_token_ids(text_or_token_ids, base, tokenizer)
        whole = [attempt.codes for attempt in found if attempt.codes is not None]
        rows = iter(self.ledger.rows_of_codes(np.array(whole, np.int64)).tolist() if whole else [])
        parsed = []
        for attempt in found:
            row = -1 if attempt.codes is None else next(rows)
            known = row >= 0
            parsed.append(
                Parsed(
                    attempt.start,
                    attempt.end,
                    attempt.text,
                    attempt.codes,
                    self.ledger.item_ids[row] if known else None,
                    known and bool(self.ledger.retired_in[row]),
                    attempt.problem or (None if known else "no item has this ID"),
                )
            )
        return parsed

    def _find_token_ids(
        self, token_ids: Sequence[int] | npt.NDArray[np.integer], base: int | None, tokenizer: TokenTable | None
    ) -> list[Found]:
        if base is None:
            base = self.base if tokenizer is None else find_base(self.vocabulary, tokenizer)
        if base is None:
            raise ConfigError(
                "token ids can be read only if it is known where the tokens of the IDs begin. "
                "Give tokenizer= (extended with semid extend) or base=."
            )
        if not isinstance(token_ids, np.ndarray) and hasattr(token_ids, "tolist"):  # a tensor, without importing torch
            token_ids = token_ids.tolist()
        return self.vocabulary.find_token_ids(token_ids, base)

    def _codes_of(self, text: str) -> Sequence[int]:
        """Codes of a text that is one ID; otherwise codes that no item has."""
        found = self.vocabulary.find(text)
        if len(found) == 1 and found[0].codes is not None and found[0].text == text.strip():
            return found[0].codes
        return [-1] * len(self.sizes)

    # ---- computing

    @property
    def is_learnt(self) -> bool:
        """Whether these IDs were learnt here; imported ones have neither codebooks nor an encoder nor a config."""
        return self._codebooks is not None

    @cached_property
    def codebooks(self) -> Codebooks:
        """The codebooks, read from the artefact when first asked for; ConfigError if the IDs were imported."""
        if self._codebooks is None:
            raise ConfigError(
                f"These IDs were imported from {self.imported_from}, which says what codes each item has and no more: "
                f"there are no codebooks. {LEARN}"
            )
        return self._codebooks() if callable(self._codebooks) else self._codebooks

    @property
    def imported_from(self) -> str | None:
        """The name of the file that IDs which were not learnt here come from; None for learnt ones."""
        if self.is_learnt:
            return None
        name = self.provenance.get("imported_from")
        return name if isinstance(name, str) else "elsewhere"

    def embed(self, items: Items, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Vectors of items, float32 [N, D], by the encoder that the IDs were learnt with.

        Raises ConfigError if that was not an encoder of semid, or if the IDs were imported.
        """
        from semid.embed import encoder_from_state

        arrays, meta = self._encoder_state
        if not self.is_learnt:
            raise ConfigError(
                f"These IDs were imported from {self.imported_from}, which does not say how items become vectors: "
                f"there is no encoder. {LEARN}"
            )
        if meta["kind"] == "vectors":
            raise ConfigError(
                "These IDs were learnt from ready vectors, so semid cannot embed new items. "
                "Embed them as before and use encode_vectors."
            )
        return encoder_from_state(arrays, meta).transform(items, progress=progress)

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
        vectors : float [N, D] in the order of `item_ids`; measures `neighbour_recall` and distortion again
        """
        from semid.evaluate import evaluate
        from semid.quality import Distortion

        distortion = raw_codes = None
        if vectors is not None and self.is_learnt:
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
        kept = _kept_figures(self.provenance)
        missing = {f.name: kept[f.name] for f in fields(now) if getattr(now, f.name) is None and f.name in kept}
        return replace(now, **missing)


def _kept_figures(provenance: Any) -> dict[str, Any]:
    """The quality that the fit noted; empty if it is not whole, since no checksum guards provenance."""
    from semid.quality import Distortion

    noted = provenance.get("quality") if isinstance(provenance, dict) else None
    if not isinstance(noted, dict):
        return {}
    kept = {name: value for name, value in noted.items() if name not in ("levels", "distortion")}
    values = [one for value in kept.values() for one in (value if isinstance(value, list) else [value])]
    distortion = noted.get("distortion")
    if distortion is not None:
        if not isinstance(distortion, dict) or set(distortion) != {one.name for one in fields(Distortion)}:
            return {}
        kept["distortion"] = Distortion(**distortion)
        values += distortion.values()
    return kept if all(value is None or isinstance(value, (int, float)) for value in values) else {}
