"""ClusterTokens: two tokens for every user and every item, the cluster and a place in it; each pair is used once.

    clusters = fit_clusters(read_interactions("histories.jsonl"))     # semid/clusters/fit.py: learn
    clusters.save("my-clusters")                                      # keep
    clusters = ClusterTokens.open("my-clusters")                      # open again: NumPy alone, memory-mapped
    clusters.users.tokens(["u17"]), clusters.decode("<c_a_3><c_b_41>")

They name what a language model needs to mention and what has no semantic ID: users, and items without text (META ID,
arXiv 2406.08477, calls them out-of-vocabulary). Users and items share the clusters and their tokens, so a user is close
to the items of his history. A coarse code is a cluster; the last ones are reserved for users and items without any
interaction or text. A fine code is a rank in the cluster, or a code of a second level with a vector.

Looking up never computes anything. `semid.extend` adds these tokens to a model as it adds semantic IDs.

Not here: learning (`fit.py`), new users and items (`cold_start.py`), scores (`metrics.py`).
U users, I items, C coarse codes, F fine codes, D dims.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from semid.artifact import kinds
from semid.artifact import store as artifact
from semid.artifact.token_artifact import TokenArtifact
from semid.data.strings import StringChain
from semid.errors import ArtifactError, ConfigError, InputError
from semid.ledger.ledger import Ledger
from semid.ledger.lookup import code_keys
from semid.tokens.id_table import IDTable
from semid.tokens.vocabulary import Vocabulary

__all__ = ["SIDES", "ClusterTokens", "Entity", "Members", "ParsedEntity", "Side", "check_distinguishable", "members_of"]

Side = Literal["user", "item"]
SIDES: tuple[Side, ...] = ("user", "item")
# name of a setting in `semid.json` -> in ClusterConfig, in WalkConfig
CONFIG_NAMES = {"fine": "second_token", "room": "spare_codes"}
WALK_NAMES = {"number": "walks_per_node", "length": "walk_length"}


@dataclass(frozen=True, slots=True)
class Entity:
    """A user or an item."""

    kind: Side
    id: str


@dataclass(frozen=True, slots=True)
class ParsedEntity:
    """Two tokens, or a malformed attempt at them, in a text: `text == whole[start:end]`.

    `entity` is None if no user or item has these tokens or they are malformed; `problem` then says why.
    """

    start: int
    end: int
    text: str
    codes: tuple[int, ...] | None
    entity: Entity | None
    problem: str | None


@dataclass(frozen=True, eq=False, repr=False)
class Members(IDTable):
    """All users, or all items: the codes of each, and its vector when the clusters were learned."""

    ledger: Ledger
    vocabulary: Vocabulary
    vectors: npt.NDArray[np.float16]  # [N, D] of unit length; zeros where nothing was known

    def __len__(self) -> int:
        return len(self.ledger)

    def __repr__(self) -> str:
        return f"Members({len(self)} ids)"

    @property
    def ids(self) -> StringChain:
        """All ids, in the order of the table."""
        return self.ledger.item_ids

    @property
    def codes(self) -> npt.NDArray[np.uint16]:
        """uint16 [N, 2]: coarse and fine code, in the order of the table."""
        return self.ledger.codes


@dataclass(frozen=True, eq=False, repr=False)
class ClusterTokens(TokenArtifact):
    """The tokens of users and items; made by `fit_clusters`, `open` or an import.

    Parameters
    ----------
    vocabulary : Vocabulary
        Two levels: C coarse codes, F fine codes.
    users, items : Members
        The codes of each user and item.
    centroids : float32 [C, D]
        Of the clusters, of unit length; zeros for reserved codes.
    fine : float32 [F, D] or None
        What a fine code adds to its cluster's centroid; None if fine codes are ranks.
    coarse_of : {"user": (first, end), "item": (first, end), "reserved": (first, end)}
        The coarse codes of each kind; equal for users and items if they share the clusters.
    config : dict
        The settings of the fit, as in `semid.json`.
    provenance : dict
        JSON data on how they were made; no part of the fingerprint.
    """

    kind: ClassVar[str] = kinds.CLUSTERS
    ledger = None  # users and items have one each

    vocabulary: Vocabulary
    users: Members
    items: Members
    centroids: npt.NDArray[np.float32]
    fine: npt.NDArray[np.float32] | None
    coarse_of: Mapping[str, tuple[int, int]]
    config: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = f"{len(self.users)} users, {len(self.items)} items"
        return f"ClusterTokens({counts}, {'x'.join(map(str, self.sizes))}, {self.fingerprint[:15]}…)"

    # ---- saving and opening

    def save(self, folder: str | Path, *, force: bool = False) -> str:
        """Write the folder, atomically for readers, and return its fingerprint.

        Raises
        ------
        OutputExistsError
            The folder is not empty, and `force` is not set.
        """
        return artifact.save(folder, self.manifest(), *self.parts(), tables=self.tsv_tables(), force=force)

    def manifest(self) -> dict[str, Any]:
        """Return what `semid.json` says besides names and checksums of files and arrays."""
        return {
            "kind": self.kind,
            "config": dict(self.config),
            "vocabulary": self.vocabulary.to_dict(),
            "coarse_of": {name: list(bounds) for name, bounds in self.coarse_of.items()},
            "counts": {"users": len(self.users), "items": len(self.items)},
            "provenance": dict(self.provenance),
        }

    def parts(self) -> list[dict[str, np.ndarray]]:
        """Return all arrays by name, in one dict: there is one data file."""
        arrays: dict[str, np.ndarray] = {"centroids": self.centroids}
        if self.fine is not None:
            arrays["fine"] = self.fine
        for side in SIDES:
            members = self.members(side)
            arrays[f"{side}s.vectors"] = members.vectors
            arrays |= {f"{side}s.{name}": array for name, array in members.ledger.arrays().items()}
        return [arrays]

    def tsv_tables(self) -> dict[str, Iterable[str]]:
        """Return the tables for people: users.tsv and items.tsv, each with its lines."""
        tables: dict[str, Iterable[str]] = {}
        for side in SIDES:
            members = self.members(side)
            tokens = self.vocabulary.texts(members.codes)
            tables[f"{side}s.tsv"] = artifact.tsv_rows(members.ids, tokens, [""] * len(members))
        return tables

    @classmethod
    def open(cls, folder: str | Path) -> ClusterTokens:
        """Open a folder that `save` wrote.

        Raises
        ------
        ArtifactError
            The folder is missing, damaged or from a newer semid.
        InputError
            It holds another kind of artifact.
        """
        loaded = artifact.load(folder)
        kinds.check_kind(folder, loaded.manifest, kinds.CLUSTERS)
        try:
            clusters = cls._from_artifact(loaded)
        except (KeyError, TypeError, ValueError) as error:
            place = Path(folder) / "semid.json"
            raise ArtifactError(f"{place}: {error}: not cluster tokens. Make them with: semid clusters.") from error
        clusters.__dict__["fingerprint"] = loaded.fingerprint  # known without reading the arrays
        return clusters

    @classmethod
    def _from_artifact(cls, loaded: artifact.Artifact) -> ClusterTokens:
        manifest, arrays = loaded.manifest, loaded.arrays
        vocabulary = Vocabulary.from_dict(manifest["vocabulary"])
        members = {}
        for side in SIDES:
            prefix = f"{side}s."
            own = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
            members[side] = Members(Ledger.from_arrays(own), vocabulary, own["vectors"])
            if len(own["vectors"]) != len(members[side]):
                raise ConfigError(f"{prefix}vectors has {len(own['vectors'])} rows, not {len(members[side])}")
        if len(arrays["centroids"]) != vocabulary.sizes[0]:
            raise ConfigError(f"centroids has {len(arrays['centroids'])} rows, not {vocabulary.sizes[0]}")
        provenance = manifest.get("provenance")  # no checksum guards it
        return cls(
            vocabulary,
            members["user"],
            members["item"],
            arrays["centroids"],
            arrays.get("fine"),
            {name: (int(first), int(end)) for name, (first, end) in manifest["coarse_of"].items()},
            manifest["config"],
            provenance if isinstance(provenance, dict) else {},
        )

    # ---- looking up

    def members(self, side: Side) -> Members:
        """Return `users` or `items`, by name."""
        if side not in SIDES:
            raise ConfigError(f"kind={side!r} should be user or item.")
        return self.users if side == "user" else self.items

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the fit by the names of `ClusterConfig`; empty if the tokens were imported."""
        settings = {CONFIG_NAMES.get(name, name): value for name, value in self.config.items()}
        walks = self.config.get("walks")
        if isinstance(walks, Mapping):
            settings["walks"] = {WALK_NAMES.get(name, name): value for name, value in walks.items()}
        return settings

    @property
    def n_tokens(self) -> int:
        """Number of tokens that a language model needs for all users and items."""
        return len(self.vocabulary)

    @property
    def level_vectors(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Centroids float32 [C, D], and fine vectors [F, D], or [F, 0] where fine codes are ranks."""
        return self.centroids, np.zeros((self.sizes[1], 0), np.float32) if self.fine is None else self.fine

    def decode(self, ids: str | Sequence[str] | npt.NDArray[np.integer]) -> Entity | None | list[Entity | None]:
        """Return the user or item with these tokens, or None: for a text, for several, or for codes int [M, 2].

        Each text must be one well-formed pair and nothing else; use `parse` for tokens in other text.
        """
        if isinstance(ids, str):
            return self._owners(self.vocabulary.codes_of_texts([ids]))[0]
        return self._owners(ids if isinstance(ids, np.ndarray) else self.vocabulary.codes_of_texts(ids))

    def _owners(self, codes: npt.NDArray[np.integer]) -> list[Entity | None]:
        found: list[Entity | None] = [None] * len(codes)
        for side in SIDES:
            members = self.members(side)
            for place, row in enumerate(members.ledger.rows_of_codes(codes).tolist()):
                if row >= 0:
                    found[place] = Entity(side, members.ids[row])
        return found

    def parse(self, text: str) -> list[ParsedEntity]:
        """Find every pair of tokens in a text, in order, with its user or item; malformed ones are reported too."""
        attempts = self.vocabulary.find(text)
        owners = iter(self._owners(np.array([one.codes for one in attempts if one.codes], np.int64).reshape(-1, 2)))
        parsed = []
        for one in attempts:
            entity = next(owners) if one.codes else None
            problem = one.problem or (None if entity else "no user or item has these tokens")
            parsed.append(ParsedEntity(one.start, one.end, one.text, one.codes, entity, problem))
        return parsed

    def check(self) -> list[str]:
        """Return every broken invariant, one sentence each: in both tables, and pairs that a user and an item share."""
        problems = [f"{side}s: {fault}" for side in SIDES for fault in self.members(side).ledger.check(self.sizes)]
        shared = np.intersect1d(code_keys(self.users.codes), code_keys(self.items.codes))
        if len(shared):
            problems.append(f"{len(shared)} pairs of tokens belong to a user and to an item.")
        return problems


def check_distinguishable(vocabulary: Vocabulary, other: Vocabulary) -> None:
    """Refuse tokens that could be mistaken for those of another vocabulary, in a model or in a text.

    Raises
    ------
    ConfigError
        The two have a token in common, or one parses the other's tokens as attempts at its own.

    >>> check_distinguishable(Vocabulary([2, 2], "<c_{letter}_{code}>"), Vocabulary([256] * 4))
    >>> check_distinguishable(Vocabulary([2, 2], "lcrec"), Vocabulary([256] * 4, "lcrec"))
    Traceback (most recent call last):
    semid.errors.ConfigError: template='lcrec' writes tokens like <a_0>, which could be mistaken for the items' tokens \
(template='lcrec'). Choose another, such as '<c_{letter}_{code}>'.
    """
    pairs = ((vocabulary, other), (other, vocabulary))
    read = any(one.find(another.text([size - 1 for size in another.sizes])) for one, another in pairs)
    if read or set(vocabulary.tokens) & set(other.tokens):
        raise ConfigError(
            f"template={vocabulary.template!r} writes tokens like {vocabulary.tokens[0]}, which could be mistaken for "
            f"the items' tokens (template={other.template!r}). Choose another, such as '<c_{{letter}}_{{code}}>'."
        )


def members_of(ids: Sequence[str], codes: npt.NDArray, vectors: npt.NDArray, vocabulary: Vocabulary) -> Members:
    """Return the table of all users, or of all items; InputError if codes come twice or lengths differ."""
    if len(vectors) != len(ids):
        raise InputError(f"vectors has {len(vectors)} rows; expected {len(ids)}, one per id.")
    return Members(Ledger.create(ids, codes), vocabulary, np.asarray(vectors, np.float16))
