"""TokenizerState: all that an artifact holds, and what can be told from it without changing it.

The pipeline makes and changes states (`dataclasses.replace` keeps the class of the one it is given); the object people
hold, `SemanticIDTokenizer`, is a state with verbs. So nothing below the tokenizer needs to know it.

N items, L levels, K codes in a level, D dims.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from semid.artifact import kinds
from semid.artifact import store as artifact
from semid.artifact.old_names import renew_config, renew_provenance
from semid.artifact.token_artifact import TokenArtifact
from semid.config import SemanticIDConfig
from semid.data.strings import StringChain
from semid.errors import ArtifactError, ConfigError, InputError
from semid.ledger.ledger import Ledger
from semid.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from semid.data.items import Items
    from semid.encoders.lexical import LexicalEncoder
    from semid.encoders.neural import NeuralEncoder
    from semid.quantize.codebooks import Codebooks

__all__ = ["IMPORTED", "EncoderState", "State", "TokenizerState"]

ENCODER = "item_encoder."  # prefix of the encoder's arrays in the artifact
STATISTICS = "fit."
BLOCK = 1 << 16  # items written as text at once
IMPORTED = "none"  # the encoder's kind where IDs come from elsewhere: no config, encoder or codebooks then
FIT = "Learn IDs with: semid fit items.jsonl -o DIR"

EncoderState = tuple[dict[str, np.ndarray], dict[str, Any]]  # arrays, and JSON data with a "kind"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TokenizerState(TokenArtifact):
    """The learned parts, the table of items with their unique codes, and the names of their tokens.

    Parameters
    ----------
    config : SemanticIDConfig or None
        The settings of the fit; None for imported IDs.
    vocabulary : Vocabulary
        How codes are written as tokens.
    ledger : Ledger
        Item ids, codes and texts of all N items.
    learned : Codebooks, the arrays to read them from when first asked for, or None for imported IDs
    encoder_state : (arrays, JSON data with a "kind")
        What turns items into vectors.
    provenance : dict
        JSON data on how the IDs were made; no part of what they are.
    text_fields : list of str, optional
        Fields of the items that the text was made of, in order.
    fit_statistics : dict of arrays
        Quantization errors of the fit, which tell whether later items still match the codebooks.
    history : list of dict, optional
        What each generation added, retired or updated; by default the fit alone.
    """

    kind: ClassVar[str] = kinds.IDS

    config: SemanticIDConfig | None
    vocabulary: Vocabulary
    ledger: Ledger
    learned: Codebooks | Mapping[str, np.ndarray] | None
    encoder_state: EncoderState
    provenance: dict[str, Any]
    text_fields: Sequence[str] | None = None
    fit_statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    history: Sequence[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        history = [{"generation": 0, "added": len(self.ledger)}] if self.history is None else list(self.history)
        object.__setattr__(self, "history", history)

    @classmethod
    def of(cls, state: TokenizerState) -> Self:
        """Return the same state as an object of this class."""
        return cls(**{one.name: getattr(state, one.name) for one in fields(TokenizerState)})

    # ---- in an artifact

    @classmethod
    def from_artifact(cls, loaded: artifact.Artifact) -> Self:
        """Return the state of a loaded folder; InputError if it is of another kind, ArtifactError if it is damaged."""
        kinds.check_kind(loaded.folder, loaded.manifest, kinds.IDS)
        try:
            state = cls._from_artifact(loaded)
        except (KeyError, TypeError, ConfigError, InputError) as error:
            path = loaded.folder
            raise ArtifactError(
                f"{path / 'semid.json'}: {error}: not what this semid writes. Run semid verify {path}."
            ) from error
        state.__dict__["fingerprint"] = loaded.fingerprint  # known without reading the arrays
        return state

    @classmethod
    def _from_artifact(cls, loaded: artifact.Artifact) -> Self:
        manifest, arrays = loaded.manifest, loaded.arrays
        if not isinstance(manifest["encoder"], dict) or "kind" not in manifest["encoder"]:
            raise ConfigError(f"encoder={manifest['encoder']!r:.200} should be an object with a kind")
        vocabulary = Vocabulary.from_dict(manifest["vocabulary"])
        ledger = Ledger.from_arrays(arrays)
        if ledger.n_levels != vocabulary.n_levels:
            raise ConfigError(f"codes have {ledger.n_levels} levels, the vocabulary {vocabulary.n_levels}")
        is_fitted = manifest["encoder"]["kind"] != IMPORTED
        return cls(
            config=SemanticIDConfig.from_dict(renew_config(manifest["config"])) if is_fitted else None,
            vocabulary=vocabulary,
            ledger=ledger,
            learned=arrays if is_fitted else None,
            encoder_state=(
                {name[len(ENCODER) :]: arrays[name] for name in arrays if name.startswith(ENCODER)},
                manifest["encoder"],
            ),
            provenance=renew_provenance(manifest.get("provenance")),
            text_fields=_list_of(str, manifest, "text_fields"),
            fit_statistics={name: arrays[name] for name in arrays if name.startswith(STATISTICS)},
            history=_list_of(dict, manifest, "history"),
        )

    def parts(self) -> list[dict[str, np.ndarray]]:
        """All arrays, by what stands in one file: what was learned, then each segment of the ledger."""
        arrays = dict(self.codebooks.arrays()) if self.is_fitted else {}
        arrays |= {ENCODER + name: array for name, array in self.encoder_state[0].items()} | dict(self.fit_statistics)
        return [arrays, *self.ledger.parts()]

    def manifest(self) -> dict[str, Any]:
        """Return what `semid.json` says besides names and checksums of files and arrays."""
        return {
            "kind": self.kind,
            # Where it was learned is not what was learned.
            "config": None if self.config is None else self.config.to_dict() | {"device": "auto"},
            "encoder": self.encoder_state[1],
            "vocabulary": self.vocabulary.to_dict(),
            "text_fields": None if self.text_fields is None else list(self.text_fields),
            "counts": {"items": len(self), "live": self.ledger.n_live},
            "generation": self.ledger.last_generation,
            "history": self.history,
            "provenance": self.provenance,
        }

    def tsv_tables(self, parts: Iterable[int] | None = None) -> dict[str, Iterable[str]]:
        """Return the tables for people of all parts of the ledger, or of some: file name -> lines."""
        tables: dict[str, Iterable[str]] = {}
        for number in range(len(self.ledger.segments)) if parts is None else parts:
            segment = self.ledger.segments[number]
            if number and not len(segment):
                continue  # a change that brought no rows
            texts = segment.texts if segment.texts is not None else [""] * len(segment)
            tokens = self._token_texts(segment.codes)
            tables[artifact.tsv_name(number)] = artifact.tsv_rows(segment.item_ids, tokens, texts)
        return tables

    def _token_texts(self, codes: npt.NDArray[np.uint16]) -> Iterator[str]:
        for start in range(0, len(codes), BLOCK):
            yield from self.vocabulary.texts(codes[start : start + BLOCK])

    def changed(self, ledger: Ledger, noted: dict[str, Any], *, date: str | None = None) -> Self:
        """Return the same state with another table of items; `noted` and, if given, `date` go into the history.

        A date is no part of the fingerprint.
        """
        provenance = self.provenance
        if date is not None:
            dates = provenance.get("dates")
            dates = dates if isinstance(dates, dict) else {}
            provenance = provenance | {"dates": dates | {str(noted["generation"]): date}}
        return replace(self, ledger=ledger, provenance=provenance, history=[*(self.history or []), noted])

    # ---- what it holds

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
    def is_fitted(self) -> bool:
        """Whether these IDs were learned here; imported ones have neither codebooks nor an encoder nor a config."""
        return self.learned is not None

    @property
    def imported_from(self) -> str | None:
        """The name of the file that imported IDs come from; None for fitted ones."""
        if self.is_fitted:
            return None
        name = self.provenance.get("imported_from")
        return name if isinstance(name, str) else "elsewhere"

    @property
    def encoder_kind(self) -> str:
        """How items became vectors: "lexical", "neural", "vectors" (ready ones), or "none" (imported IDs)."""
        return self.encoder_state[1]["kind"]

    # ---- computing

    @cached_property
    def codebooks(self) -> Codebooks:
        """The codebooks, read from the artifact when first asked for; ConfigError if the IDs were imported."""
        if self.learned is None:
            raise ConfigError(
                f"These IDs were imported from {self.imported_from}, which says what codes each item has and no more: "
                f"there are no codebooks. {FIT}"
            )
        if not isinstance(self.learned, Mapping):
            return self.learned
        from semid.quantize.codebooks import Codebooks

        return Codebooks.from_arrays(self.learned)

    @property
    def level_vectors(self) -> Sequence[npt.NDArray[np.float32]] | None:
        """The codebooks as L arrays float32 [K, d]; None if the IDs were imported."""
        return self.codebooks.levels if self.is_fitted else None

    def embed(self, items: Items) -> npt.NDArray[np.float32]:
        """Vectors of items, float32 [N, D], by the encoder that the IDs were learned with.

        Raises ConfigError if that was not an encoder of semid, or if the IDs were imported.
        """
        if not self.is_fitted:
            raise ConfigError(
                f"These IDs were imported from {self.imported_from}, which does not say how items become vectors: "
                f"there is no encoder. {FIT}"
            )
        if self.encoder_kind == "vectors":
            raise ConfigError(
                "These IDs were learned from ready vectors, so semid cannot embed new items. "
                "Embed them as before, and give the vectors (--embeddings, embeddings=), or use encode_vectors."
            )
        return self.encoder.transform(items)

    @cached_property
    def encoder(self) -> LexicalEncoder | NeuralEncoder:
        """The encoder that the IDs were learned with, which turns items into vectors."""
        from semid.encoders import encoder_from_state

        return encoder_from_state(*self.encoder_state)

    def encode_vectors(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
        """Nearest codes of vectors [N, D]: int32 [N, L]. Not IDs: they may belong to other items.

        Raises ConfigError if the IDs were imported.
        """
        beam = 1 if self.config is None else self.config.encode_beam
        return self.codebooks.encode(np.asarray(vectors), beam=beam)


State = TypeVar("State", bound=TokenizerState)


def _list_of(kind: type, manifest: Mapping[str, Any], name: str) -> list | None:
    """Return a list of the manifest, or None where there is none (format 1); ConfigError if it holds other things."""
    found = manifest.get(name)
    if found is not None and not (isinstance(found, list) and all(isinstance(one, kind) for one in found)):
        raise ConfigError(f"{name}={found!r:.200} should be a list of {kind.__name__}")
    return found
