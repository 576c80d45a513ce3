"""New items for IDs that stand: embed, encode, and take the nearest free ID; what is there does not change.

    read -> known or new? -> embed new ones -> encode -> assign off the IDs in use -> append

Everything looks up what it needs: nothing here is of the size of the catalog, but the new items. Whether the
codebooks still fit what comes in is told from the errors that the fit left behind (`Drift`).

Not here: files and locks (`update.py`). N new items, D dims, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.assign.unique import assign_unique
from semid.data.items import Items, read_items
from semid.errors import CapacityError, ConfigError, InputError
from semid.pipeline.embed import given_vectors
from semid.pipeline.learn import SAMPLE
from semid.state import State, TokenizerState

if TYPE_CHECKING:
    from semid.assign.unique import Assignment
    from semid.ledger.ledger import Ledger

__all__ = ["Added", "Drift", "add"]

SHOWN = 10  # ids named in a report
FEWEST = 30  # items from which drift is judged
WORSE = 1.5  # times the expected error, from which new items are said not to fit
OUTLYING = 0.25  # share of the items beyond the expected 95th percentile, likewise: 0.05 would be expected
SHOWN_PREFIXES = 3


@dataclass(frozen=True)
class Drift:
    """How well the codebooks fit the new items, beside the items of the fit. Errors are of latents, squared."""

    error: float
    fit_error: float
    expected: float  # ratio of the two for more items of the same kind: codebooks fit best what they were made from
    outlying: float  # share of the new items with an error above `expected` times the fit's 95th percentile
    prefixes: list[dict[str, float]]  # first codes whose new items fit worst: code, items, error, fit_error

    @property
    def ratio(self) -> float:
        """Error of the new items over that of the fit's."""
        return self.error / self.fit_error if self.fit_error > 0 else float("inf") if self.error > 0 else 1.0

    @property
    def fits(self) -> bool:
        """Whether nothing speaks for a refit."""
        return self.ratio < WORSE * self.expected and self.outlying < OUTLYING


@dataclass(frozen=True)
class Added:
    """What adding did: counts of items, and the mean squared errors of their latents before and after uniqueness."""

    generation: int  # that the items now belong to, or the latest one if nothing changed
    added: int
    unchanged: int  # known, with the same text
    updated: int  # known, and given the new text
    differing: list[str] = field(default_factory=list)  # known with another text, which was not stored
    retired: list[str] = field(default_factory=list)  # known, but retired: they stay so
    first_choice: int = 0  # got the nearest ID there is
    moved: int = 0  # got another last code under the same prefix
    moved_prefix: int = 0  # got another prefix
    distortion: float = 0.0
    nearest_distortion: float = 0.0
    fullest: float = 0.0  # share of IDs in use under the fullest prefix of the new items
    drift: Drift | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = asdict(self)
        if self.drift is not None:
            told["drift"] |= {"ratio": self.drift.ratio, "fits": self.drift.fits}
        return told

    def lines(self) -> list[str]:
        """For people."""
        known = f"; {self.unchanged:,} were there already" if self.unchanged else ""
        told = [f"added       {self.added:,} items as generation {self.generation}{known}"]
        if not self.added and not self.updated:
            told = [f"unchanged   no new items{known}"]
        if self.added:
            farther = self.distortion / self.nearest_distortion - 1 if self.nearest_distortion else 0.0
            told.append(
                f"assigned    {self.first_choice:,} got their first choice, {self.moved:,} another last code, "
                f"{self.moved_prefix:,} another prefix; error {farther:+.1%}"
            )
            told.append(f"room        the fullest prefix of the new items is {self.fullest:.0%} full")
        if self.drift is not None:
            told.append(
                f"fit         error {self.drift.error:.4g}, {self.drift.ratio:.2f} times that of the fit (expected: "
                f"{self.drift.expected:.2f}); {self.drift.outlying:.0%} of the new items beyond the 95th percentile"
            )
        if self.updated:
            told.append(f"updated     the text of {self.updated:,} items; their IDs stand")
        return told

    def warnings(self) -> list[str]:
        """Return what the user should look at, a sentence each."""
        told = []
        if self.differing:
            told.append(
                f"{len(self.differing):,} items are there with another text, which was kept: {_named(self.differing)}. "
                "Use --update to store the new text; IDs stand either way."
            )
        if self.retired:
            told.append(f"{len(self.retired):,} items were retired and stay so: {_named(self.retired)}.")
        if self.drift is not None and not self.drift.fits:
            worst = ", ".join(
                f"{int(one['code'])} ({one['error'] / one['fit_error']:.1f} times)" for one in self.drift.prefixes
            )
            drift = self.drift
            codes = "; first codes " + worst if worst else ""
            told.append(
                f"the new items do not fit the codebooks well: error {drift.ratio:.2f} times that of the fit, "
                f"{drift.expected:.2f} expected; {drift.outlying:.0%} beyond the 95th percentile{codes}. "
                "Think of semid refit."
            )
        return told


def add(
    ids: State,
    source: Any,
    *,
    embeddings: Any = None,
    id_field: str = "id",
    text: Sequence[str] | str | None = None,
    update: bool = False,
    reuse_after: int | None = None,
    date: str | None = None,
) -> tuple[State, Added]:
    """Return a tokenizer with the new items of `source`, each with the nearest free ID, and a report.

    Parameters
    ----------
    source : as for `read_items`
    text : the text fields of `source`, in the order of those of the fit, where they have other names
    embeddings : array [N, D] or path, in the order of `source`; needed where the IDs were learned from ready vectors
    update : store the text of items that are there with another one; their IDs stand
    reuse_after : give out IDs again that were retired at least so many generations ago; by default never
    date : kept in the history as it is

    Raises
    ------
    InputError, ConfigError
        Before anything is changed. CapacityError where there are fewer free IDs than new items.

    >>> from semid import SemanticIDTokenizer
    >>> shop = [{"id": str(n), "title": f"{c} {t}"} for n, (c, t) in enumerate(
    ...     (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
    >>> ids = SemanticIDTokenizer.fit(shop, levels=2, codebook_size=4)
    >>> later, report = add(ids, [{"id": "9", "title": "blue hat"}, {"id": "0", "title": "red shoe"}])
    >>> report.added, report.unchanged, later.codes[:9].tolist() == ids.codes.tolist(), len(later)
    (1, 1, True, 10)
    """
    if reuse_after is not None and reuse_after < 1:
        raise ConfigError(f"reuse_after={reuse_after} should be at least 1.")
    if not ids.is_fitted:
        ids.embed(Items([], {}))  # says why there is nothing to encode with
    if embeddings is not None and ids.encoder_kind not in ("vectors", "none"):
        raise ConfigError(
            "embeddings were given, but these IDs have an encoder of their own, which embeds new items too. "
            "Leave them out."
        )
    items = _read(ids, source, id_field, text)
    rows = ids.ledger.find_rows(items.ids)
    known = _Known.among(ids, items, rows)
    places = sorted(np.flatnonzero(rows < 0).tolist(), key=items.ids.__getitem__)  # one order, however they came
    new = items.take(places)
    revised = known.revised if update else {}
    if not len(new) and not revised:
        return ids, Added(ids.ledger.last_generation, 0, known.unchanged, 0, list(known.differing), known.retired)

    assignment, drift = None, None
    codes: npt.NDArray[np.integer] = np.zeros((0, len(ids.sizes)), np.uint16)
    if len(new):
        ready = embeddings is not None
        vectors = given_vectors(items, embeddings)[np.array(places)] if ready else ids.embed(new)
        _check_width(ids, vectors)
        latents = ids.codebooks.latents(vectors)
        beam = 1 if ids.config is None else ids.config.encode_beam
        raw = ids.codebooks.encode_latents(latents, beam=beam)
        drift = _drift(ids, latents, raw)
        in_use = ids.ledger.in_use(reuse_after)
        try:
            assignment = assign_unique(latents, raw, ids.codebooks.levels, occupied=in_use)
        except CapacityError as error:
            reason = str(error).rpartition(" Use ")[0]  # more levels, which only a new artifact can have
            raise CapacityError(
                f"{reason} Give out retired IDs again with --reuse-after, or learn again with more levels: semid refit."
            ) from None
        codes = assignment.codes
    texts = new.texts() if ids.ledger.texts is not None else None
    ledger = ids.ledger.append(new.ids, codes, texts, revised=revised, reuse_after=reuse_after)
    noted = {"generation": ledger.last_generation, "added": len(new), "updated": len(revised)}
    report = Added(
        generation=ledger.last_generation,
        added=len(new),
        unchanged=known.unchanged,
        updated=len(revised),
        differing=[] if update else list(known.differing),
        retired=known.retired,
        drift=drift,
        **_figures(assignment, ledger, codes, ids.sizes[-1]),
    )
    return ids.changed(ledger, noted, date=date), report


def _read(ids: TokenizerState, source: Any, id_field: str, text: Sequence[str] | str | None) -> Items:
    """Read the items with the text fields of the fit, in its order, without those that no item has."""
    if text is not None:
        return _renamed(read_items(source, text=text, id_field=id_field), ids.text_fields or ())
    if ids.text_fields is None:
        return read_items(source, id_field=id_field)
    if not isinstance(source, Items):
        source = read_items(source, id_field=id_field, keep=ids.text_fields)
    fields = {name: source.fields[name] for name in ids.text_fields if name in source.fields}
    if ids.text_fields and not fields:
        have, want = ", ".join(source.fields) or "none", ", ".join(ids.text_fields)
        raise InputError(
            f"{source.source}: text fields are {have}; the IDs were learned from {want}. Name those that correspond, "
            "in this order, with --text."
        )
    return replace(source, fields=fields)


def _renamed(items: Items, names: Sequence[str]) -> Items:
    """Return items with the names that their text fields had at the fit."""
    if not names:
        return items
    if len(items.fields) != len(names):
        raise ConfigError(
            f"text={','.join(items.fields)}: expected {len(names)} fields, in the order of those that the IDs were "
            f"learned from: {','.join(names)}."
        )
    return replace(items, fields=dict(zip(names, items.fields.values(), strict=True)))


@dataclass(frozen=True)
class _Known:
    """The items that are there already."""

    unchanged: int
    revised: dict[int, str]  # row -> another text
    differing: list[str]  # their ids
    retired: list[str]

    @classmethod
    def among(cls, ids: TokenizerState, items: Items, rows: npt.NDArray[np.int64]) -> _Known:
        places = np.flatnonzero(rows >= 0)
        gone = ids.ledger.retired_generations(rows[places]) > 0
        retired = [items.ids[place] for place in places[gone].tolist()]
        places = places[~gone]
        if ids.ledger.texts is None:
            return cls(len(places), {}, [], retired)
        stored, given = ids.ledger.texts, items.take(places).texts()
        revised, differing = {}, []
        for place, text in zip(places.tolist(), given, strict=True):
            row = int(rows[place])
            if stored[row] != text:
                revised[row] = text
                differing.append(items.ids[place])
        return cls(len(places) - len(revised), revised, differing, retired)


def _check_width(ids: TokenizerState, vectors: npt.NDArray[np.float32]) -> None:
    wanted = ids.codebooks.input_dim
    if vectors.shape[1] != wanted:
        raise InputError(f"embeddings: D={vectors.shape[1]} should be {wanted}, as when the IDs were learned.")


def _drift(ids: TokenizerState, latents: npt.NDArray[np.floating], raw: npt.NDArray[np.integer]) -> Drift | None:
    """None where the artifact has no figures of its fit, or the items are too few to tell."""
    known = ids.fit_statistics
    if "fit.errors" not in known or len(latents) < FEWEST:
        return None
    left = latents - ids.codebooks.quantized(raw)
    errors = np.einsum("nd,nd->n", left, left, dtype=np.float64)
    counts, fit_errors = known["fit.counts"], np.nan_to_num(known["fit.errors"])
    first, n = np.unique(raw[:, 0], return_counts=True)
    means = np.bincount(raw[:, 0], errors, len(counts))[first] / n
    judged = (n >= FEWEST) & (fit_errors[first] > 0)
    expected = _expected_ratio(ids.sizes, min(int(counts.sum()), SAMPLE))
    order = np.argsort(-(means[judged] / fit_errors[first[judged]]), kind="stable")[:SHOWN_PREFIXES]
    worst = [
        {"code": int(first[judged][i]), "items": int(n[judged][i]), "error": float(means[judged][i]),
         "fit_error": float(fit_errors[first[judged][i]])}
        for i in order.tolist()
        if means[judged][i] >= WORSE * expected * fit_errors[first[judged][i]]
    ]  # fmt: skip
    return Drift(
        float(errors.mean()),
        float((fit_errors * counts).sum() / max(1, counts.sum())),
        expected,
        float((errors > expected * known["fit.quantiles"][95]).mean()),
        worst,
    )


def _expected_ratio(sizes: Sequence[int], n_items: int) -> float:
    """Error of an unseen item over that of an item that the codebooks were made from: prod_l (n_l / (n_l - 1))^2.

    A centroid is the mean of its n members, so without one of them it lies n / (n - 1) times as far from it. With
    n_l = items per code of level l. The sample catalog of 3,000 items and 4 x 256 codes: 2.05; measured on items
    held out: 1.9.
    """
    per_code = (max(2.0, n_items / size) for size in sizes)
    return float(np.prod([(n / (n - 1)) ** 2 for n in per_code]))


def _figures(assignment: Assignment | None, ledger: Ledger, codes: npt.NDArray, n_last: int) -> dict[str, Any]:
    if assignment is None:
        return {}
    told = assignment.certificate
    counts, _ = ledger.in_use().last_codes(np.unique(codes[:, :-1], axis=0))
    return {
        "first_choice": told.n_items - told.moved_items,
        "moved": told.moved_items - told.moved_prefix,
        "moved_prefix": told.moved_prefix,
        "distortion": told.distortion_after,
        "nearest_distortion": told.distortion_before,
        "fullest": float(counts.max()) / n_last,
    }


def _named(item_ids: list[str]) -> str:
    shown = ", ".join(map(repr, item_ids[:SHOWN]))
    return shown + (f" and {len(item_ids) - SHOWN} more" if len(item_ids) > SHOWN else "")
