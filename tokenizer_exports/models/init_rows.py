"""What the rows of new tokens start as: where in a language model's embedding space each code begins.

The old rows of a matrix have a mean and a spread (`RowStats`). A new row is placed relative to them:

    row of (level, code) = mean + radius * (sqrt(1 - LEVEL_SHARE) * shape[code] + sqrt(LEVEL_SHARE) * axis)

`radius` is the root mean square distance of old rows from their mean, `shape` the geometry of the level, centered and
with a root mean square length of 1, and `axis` a unit vector of the level's own. So every level is spread as far as
the old rows are, however small the residuals of its codebook; new rows are as long as old ones; levels are separate;
and within a level, distances are those of the shape times one number.

- `codebook`: the shape is the level's code vectors, rotated into H dims. Levels lie in orthogonal subspaces (where H
  is large enough; otherwise in independent random ones), orthogonal to the mean.
- `text`: the shape is the mean, over the live items under the code, of the mean of the matrix's own rows over the
  tokens of the item's text. These means are almost equal, since all texts share their frequent words; centering
  removes that part. A code without items keeps its codebook shape.
- `text+codebook`: half of each.
- `default`: as resizing would: a normal draw around the mean with the old rows' deviation in each dim. No geometry.

Markers start at the mean plus a little noise. All math is float64 NumPy over blocks of rows, so a matrix in memory and
one in a file give equal results, and neither is ever copied whole.

Not here: which matrices a model has (`in_memory.py`, `on_disk.py`), how good the start is (`row_report.py`).
V old rows, H dims, L levels, K codes in a level, d dims of a code's vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.artifact import kinds
from semid.encoders.checkpoint import Blocks
from semid.errors import ConfigError
from semid.tokenizer_exports.models.text_shares import TextShares
from semid.tokens.source import TokenBlock, TokenSource

__all__ = ["FROM_TEXTS", "Init", "RowStats", "check_choices", "init_rows", "row_stats"]

Init = Literal["auto", "text", "codebook", "text+codebook", "default"]
INITS: dict[str, Init] = {name: name for name in get_args(Init)}
FROM_TEXTS: tuple[Init, ...] = ("text", "text+codebook")
Floats = npt.NDArray[np.float64]

# Share of a row's squared distance from the mean that lies along its level's own axis. What a level has in common is
# learned first: after 50 steps of SmolLM2-135M (3,459 office items, new rows and LoRA) the loss of the next item was
# 6.8 with 0.5 and 8.6 with 0.1 for the codebook start, 6.6, 6.8 and 7.9 with 0.5, 0.3 and 0.1 for the text start.
LEVEL_SHARE = 0.5
MARKER_NOISE = 0.1  # of the old rows' deviation


@dataclass(frozen=True)
class RowStats:
    """Where the old rows of a matrix lie; only rows of tokens count, not the padding after them."""

    mean: Floats  # (H,)
    std: Floats  # (H,) - of each dim
    norm: float  # mean length of a row

    @property
    def radius(self) -> float:
        """Root mean square distance of a row from the mean."""
        return float(np.sqrt((self.std**2).sum()))


def check_choices(init: str, pad_to: int, source: TokenSource, alpha: float = 0.0) -> Init:
    """Check the choices of `extend` and resolve `init="auto"`.

    "auto" is the first of "text", "codebook", "default" that the tokens have what it takes for. A model learns fastest
    from texts (docs/benchmarks.md).

    Raises
    ------
    ConfigError
        An unknown init; `pad_to` below 1; an init that needs vectors or texts that the tokens do not have; alpha for
        tokens without centroids.
    """
    chosen = INITS.get(init)
    if chosen is None:
        raise ConfigError(f"init={init!r} should be one of {', '.join(INITS)}.")
    if isinstance(pad_to, bool) or not isinstance(pad_to, int) or pad_to < 1:
        raise ConfigError(f"pad_to={pad_to!r} should be an integer of 1 or more; 64 suits GPUs, 1 pads nothing.")
    of_clusters = source.kind == kinds.CLUSTERS
    has_texts = source.ledger is not None and source.ledger.texts is not None
    has_vectors = source.level_vectors is not None
    if chosen in ("codebook", "text+codebook") and not has_vectors:
        raise ConfigError(
            f"init={init!r} needs codebooks, and these IDs were imported without any. Use init="
            f"{('text' if has_texts else 'default')!r}."
        )
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha < math.inf:
        raise ConfigError(f"alpha={alpha!r} should be a number of 0 (off) or more; META ID's is 0.1.")
    if alpha and not of_clusters:
        raise ConfigError(f"alpha={alpha!r} adds the centroids of clusters, and these tokens have none. Leave it out.")
    if chosen in FROM_TEXTS and not has_texts:
        if of_clusters:
            raise ConfigError(f"init={init!r} needs texts, and users have none. Use init='codebook' or init='default'.")
        raise ConfigError(
            f"init={init!r} needs the texts of the items, and these IDs were saved without them (store_text=False). "
            "Use init='codebook', or fit again with texts."
        )
    if chosen != "auto":
        return chosen
    return "text" if has_texts else "codebook" if has_vectors else "default"


def row_stats(blocks: Blocks, known: npt.NDArray[np.bool_]) -> RowStats:
    """Return mean, deviation and length of the rows with `known` [V] set; the other rows belong to no token.

    >>> stats = row_stats(lambda: [(0, np.float32([[3, 4], [5, 4], [99, 99]]))], np.array([True, True, False]))
    >>> stats.mean.tolist(), stats.std.tolist(), stats.radius
    ([4.0, 4.0], [1.0, 0.0], 1.0)
    """
    count, norms = 0, 0.0
    total = squares = np.zeros(1)
    for start, block in blocks():
        rows = block[known[start : start + len(block)]].astype(np.float64)
        count += len(rows)
        total = total + rows.sum(0)
        squares = squares + (rows**2).sum(0)
        norms += np.sqrt((rows**2).sum(1)).sum()
    mean = total / count
    return RowStats(mean, np.sqrt(np.maximum(squares / count - mean**2, 0)), float(norms / count))


def init_rows(
    vocabulary: TokenBlock,
    levels: Sequence[npt.NDArray[np.floating]],
    stats: RowStats,
    *,
    init: Init,
    seed: int,
    texts: TextShares | None = None,
    blocks: Blocks | None = None,
) -> npt.NDArray[np.float32]:
    """Return the rows of all tokens of the block, markers included: float32 [len(vocabulary), H].

    Parameters
    ----------
    vocabulary : TokenBlock
        The tokens: sizes of the levels, and how many markers.
    levels : L arrays float [K, d]
        The vectors of the codes.
    stats : RowStats
        Where the old rows lie.
    init : Init
        How rows start; not "auto".
    seed : int
        Of the random directions.
    texts, blocks : TextShares and the matrix's old rows, optional
        What the items say; needed for "text" and "text+codebook".

    >>> stats = RowStats(np.zeros(16), np.ones(16), 4.0)
    >>> levels = [np.eye(3), np.eye(2) * 0.01]
    >>> from semid.tokens import Vocabulary
    >>> rows = init_rows(Vocabulary([3, 2]), levels, stats, init="codebook", seed=0)
    >>> rows.shape, np.linalg.norm(rows[:5], axis=1).round(4).tolist()
    ((7, 16), [4.0, 4.0, 4.0, 4.0, 4.0])
    """
    sizes, width = vocabulary.sizes, len(stats.mean)
    draw = np.random.default_rng([seed, len(sizes)])
    n_markers = len(vocabulary) - sum(sizes)
    # the markers are drawn first, so that they do not depend on the init
    markers = stats.mean + MARKER_NOISE * stats.std * draw.standard_normal((n_markers, width))
    if init == "default":
        codes = stats.mean + stats.std * draw.standard_normal((sum(sizes), width))
        return np.concatenate([codes, markers]).astype(np.float32)
    means = has_items = None
    if init in FROM_TEXTS:
        assert texts is not None and blocks is not None
        means, has_items = texts.mean_rows(blocks, width), texts.n_items > 0
    rows = np.empty((len(vocabulary), width), np.float32)
    rows[sum(sizes) :] = markers
    for level, (vectors, axes) in enumerate(zip(levels, _axes(levels, stats.mean, seed), strict=True)):
        place = slice(*vocabulary.offsets[level : level + 2].tolist())
        shape = _unit(_coordinates(vectors, len(axes) - 1) @ axes[1:])
        if shape is None:  # all vectors are equal: any distinct directions will do
            shape = _unit(draw.standard_normal((sizes[level], width)))
        if shape is not None and means is not None and has_items is not None:
            text = _text_shape(means[place], has_items[place], shape)
            shape = text if init == "text" else _unit(text + shape)
        share = LEVEL_SHARE if shape is not None else 1.0  # a level of one code has no shape
        spread = 0.0 if shape is None else math.sqrt(1 - share) * shape
        rows[place] = stats.mean + stats.radius * (spread + math.sqrt(share) * axes[0])
    return rows


def _unit(shape: Floats) -> Floats | None:
    """Return the shape [K, H] centered and with a root mean square length of 1; None if all its rows are equal."""
    centered = shape - shape.mean(0)
    length = math.sqrt((centered**2).sum() / len(centered))
    size = math.sqrt((shape**2).sum() / len(shape))
    return centered / length if length > 1e-6 * size else None


def _coordinates(vectors: npt.NDArray[np.floating], most: int) -> Floats:
    """Return centered vectors [K, r] with r <= most: as they are, or in their principal axes if that needs fewer dims.

    Distances are kept exactly where r dims suffice (always if min(K - 1, d) <= most), else in least squares.
    """
    centered = np.asarray(vectors, np.float64)
    centered = centered - centered.mean(0)
    if centered.shape[1] <= most:
        return centered
    left, lengths, _ = np.linalg.svd(centered, full_matrices=False)
    left = left[:, :most] * np.where(left[np.abs(left).argmax(0), range(left.shape[1])] < 0, -1, 1)[:most]
    return left * lengths[:most]


def _axes(levels: Sequence[npt.NDArray[np.floating]], mean: Floats, seed: int) -> Iterator[Floats]:
    """Yield orthonormal rows [1 + r, H] for each level: its own axis, then those of its shape; orthogonal to the mean.

    All levels share one frame where H is large enough, so that they are orthogonal; otherwise each has its own.
    """
    width = len(mean)
    needs = [1 + max(0, min(vectors.shape[1], len(vectors) - 1, width - 2)) for vectors in levels]
    if sum(needs) < width:
        frame = _frame(mean, sum(needs), np.random.default_rng([seed]))
        ends = np.cumsum(needs)
        yield from (frame[end - need : end] for end, need in zip(ends, needs, strict=True))
        return
    for level, need in enumerate(needs):
        yield _frame(mean, need, np.random.default_rng([seed, level]))


def _frame(mean: Floats, n: int, draw: np.random.Generator) -> Floats:
    """Return n random orthonormal rows [n, H], orthogonal to the mean; equal draws give equal rows."""
    columns = draw.standard_normal((len(mean), 1 + n))
    if mean.any():
        columns[:, 0] = mean
    axes, triangle = np.linalg.qr(columns)
    return np.ascontiguousarray((axes * np.where(np.diag(triangle) < 0, -1, 1)).T[1:])


def _text_shape(means: Floats, has_items: npt.NDArray[np.bool_], fallback: Floats) -> Floats:
    """Return the shape [K, H] of text means; codes without items, or a level without differences, keep the fallback."""
    shape = _unit(means[has_items]) if has_items.any() else None
    if shape is None:
        return fallback
    whole = fallback.copy()
    whole[has_items] = shape
    return whole
