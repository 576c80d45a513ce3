"""First values for the rows of new tokens: where in a language model's embedding space each code starts.

The old rows of a matrix are a cloud: a mean and a spread (`Cloud`). A new row is put into that cloud,

    row of (level, code) = mean + radius * (sqrt(1 - LEVEL_SHARE) * shape[code] + sqrt(LEVEL_SHARE) * axis)

with `radius` the root mean square distance of old rows from their mean, `shape` the level's geometry, centered and
scaled to a root mean square length of 1, and `axis` a unit vector of the level's own. So every level is as far
spread as the words are, however small the residuals of its codebook; new rows have the norm of old ones; levels
lie apart; and within a level, distances are those of the shape, times one number.

- `codebook`: the shape is the level's centroids, turned isometrically into H dims. Levels lie in orthogonal
  subspaces (where H has room; otherwise in independent random ones), at right angles to the mean.
- `text`: the shape is the mean, over the live items under the code, of the mean of the matrix's own rows over the
  tokens of the item's text. Such means are almost equal, for all texts share their frequent words; centring takes
  that part out. A code without items keeps its codebook shape.
- `mix`: half of each.
- `default`: as resizing would: a normal draw around the mean with the old rows' deviation in each dim. No geometry.

Markers start at the mean plus a little noise. All maths is float64 NumPy over blocks of rows, so a matrix in memory
and one in a file give equal results, and neither is ever copied whole.

Not here: which matrices a model has (`in_memory.py`, `on_disk.py`), how good the start is (`row_report.py`).
V old rows, H dims, L levels, K codes in a level, d dims of a centroid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.clusters.tokens import ClusterTokens
from semid.encoders.checkpoint import Blocks
from semid.encoders.input_embeddings import TEXT_BATCH, first_tokens
from semid.errors import ConfigError
from semid.runtime.progress import bar
from semid.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from scipy.sparse import csc_array
    from transformers import PreTrainedTokenizerBase

    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["Cloud", "Init", "Texts", "check_choices", "first_rows", "measure", "read_texts"]


Init = Literal["auto", "text", "codebook", "mix", "default"]
Floats = npt.NDArray[np.float64]


# Of a row's squared distance from the mean, how much is along its level's own axis. What a level has in common is
# learned first: after 50 steps of SmolLM2-135M (3,459 office items, new rows and LoRA) the loss of the next item was
# 6.8 with 0.5 and 8.6 with 0.1 for the codebook start, 6.6, 6.8 and 7.9 with 0.5, 0.3 and 0.1 for the text start.
LEVEL_SHARE = 0.5
MARKER_NOISE = 0.1  # of the old rows' deviation


MOST_TEXTS = 200_000  # items read; of more, so many at even distances: some hundred a code say what it means
SHARES_WAITING = 1 << 21  # (code, token) pairs that wait to be summed


@dataclass(frozen=True)
class Cloud:
    """Where the old rows of a matrix lie; only rows of tokens count, not the padding behind them."""

    mean: Floats  # (H,)
    std: Floats  # (H,) - of each dim
    norm: float  # mean length of a row

    @property
    def radius(self) -> float:
        """Root mean square distance of a row from the mean."""
        return float(np.sqrt((self.std**2).sum()))


@dataclass(frozen=True)
class Texts:
    """What the items under each code say, as shares of tokens."""

    shares: csc_array  # (sum of K, V) float64 - row: a code; its shares sum to 1, or 0 without items
    n_items: npt.NDArray[np.int64]  # (sum of K,) - live items with a text under the code


def check_choices(init: str, pad_to: int, ids: SemanticIDTokenizer | ClusterTokens, alpha: float = 0.0) -> Init:
    """ConfigError for an unknown init, a padding below 1, or codebooks, texts or centroids that are not there.

    Returns the init that is meant: "auto" is the first of "text", "codebook", "default" that the IDs have what it takes
    for. In docs/benchmarks.md a model learns fastest from texts.
    """
    if init not in get_args(Init):
        raise ConfigError(f"init={init!r} should be one of {', '.join(get_args(Init))}.")
    if isinstance(pad_to, bool) or not isinstance(pad_to, int) or pad_to < 1:
        raise ConfigError(f"pad_to={pad_to!r} should be a whole number from 1 on; 64 suits GPUs, 1 pads nothing.")
    if init in ("codebook", "mix") and not ids.is_fitted:
        raise ConfigError(
            f"init={init!r} needs codebooks, and these IDs came from elsewhere without any. Use init="
            f"{('default' if ids.texts is None else 'text')!r}."
        )
    of_clusters = isinstance(ids, ClusterTokens)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha < math.inf:
        raise ConfigError(f"alpha={alpha!r} should be a number from 0 (off) on; META ID's is 0.1.")
    if alpha and not of_clusters:
        raise ConfigError(f"alpha={alpha!r} adds the centroids of clusters, and these are semantic IDs. Leave it out.")
    if init in ("text", "mix") and of_clusters:
        raise ConfigError(f"init={init!r} needs texts, and users have none. Use init='codebook' or init='default'.")
    if init in ("text", "mix") and ids.texts is None:
        raise ConfigError(
            f"init={init!r} needs the texts of the items, which these IDs were saved without (store_text=False). "
            "Use init='codebook', or fit again with texts."
        )
    if init != "auto":
        return init
    if ids.texts is not None:
        return "text"
    return "codebook" if ids.is_fitted else "default"


def measure(blocks: Blocks, known: npt.NDArray[np.bool_]) -> Cloud:
    """The cloud of the rows with `known` [V] set; the others belong to no token.

    >>> cloud = measure(lambda: [(0, np.float32([[3, 4], [5, 4], [99, 99]]))], np.array([True, True, False]))
    >>> cloud.mean.tolist(), cloud.std.tolist(), cloud.radius
    ([4.0, 4.0], [1.0, 0.0], 1.0)
    """
    count, norms, total, squares = 0, 0.0, 0.0, 0.0
    for start, block in blocks():
        rows = block[known[start : start + len(block)]].astype(np.float64)
        count += len(rows)
        total += rows.sum(0)
        squares += (rows**2).sum(0)
        norms += np.sqrt((rows**2).sum(1)).sum()
    mean = total / count
    return Cloud(mean, np.sqrt(np.maximum(squares / count - mean**2, 0)), float(norms / count))


def first_rows(
    vocabulary: Vocabulary,
    levels: Sequence[npt.NDArray[np.floating]],
    cloud: Cloud,
    *,
    init: Init,
    seed: int,
    texts: Texts | None = None,
    blocks: Blocks | None = None,
) -> npt.NDArray[np.float32]:
    """Rows of all tokens of the block, markers included: float32 [len(vocabulary), H].

    Parameters
    ----------
    levels : L arrays float [K, d], the centroids
    texts, blocks : what the items say, and the matrix's old rows; for "text" and "mix" only

    >>> cloud = Cloud(np.zeros(16), np.ones(16), 4.0)
    >>> levels = [np.eye(3), np.eye(2) * 0.01]
    >>> rows = first_rows(Vocabulary([3, 2]), levels, cloud, init="codebook", seed=0)
    >>> rows.shape, np.linalg.norm(rows[:5], axis=1).round(4).tolist()
    ((7, 16), [4.0, 4.0, 4.0, 4.0, 4.0])
    """
    sizes, width = vocabulary.sizes, len(cloud.mean)
    draw = np.random.default_rng([seed, len(sizes)])
    n_markers = len(vocabulary) - sum(sizes)
    # the markers are drawn first, so that they do not depend on the init
    markers = cloud.mean + MARKER_NOISE * cloud.std * draw.standard_normal((n_markers, width))
    if init == "default":
        codes = cloud.mean + cloud.std * draw.standard_normal((sum(sizes), width))
        return np.concatenate([codes, markers]).astype(np.float32)
    means = _text_means(texts, blocks, width) if init in ("text", "mix") else None
    rows = np.empty((len(vocabulary), width), np.float32)
    rows[sum(sizes) :] = markers
    for level, (centroids, axes) in enumerate(zip(levels, _axes(levels, cloud.mean, seed), strict=True)):
        place = slice(*vocabulary.offsets[level : level + 2].tolist())
        shape = _unit(_coordinates(centroids, len(axes) - 1) @ axes[1:])
        if shape is None:  # all centroids are equal: any distinct directions serve
            shape = _unit(draw.standard_normal((sizes[level], width)))
        if means is not None:
            text = _text_shape(means[place], texts.n_items[place] > 0, shape)
            shape = text if init == "text" else _unit(text + shape)
        share = LEVEL_SHARE if shape is not None else 1.0  # a level of one code has no shape
        spread = 0.0 if shape is None else math.sqrt(1 - share) * shape
        rows[place] = cloud.mean + cloud.radius * (spread + math.sqrt(share) * axes[0])
    return rows


def _unit(shape: Floats | None) -> Floats | None:
    """The shape [K, H] centered and with a root mean square length of 1; None if there is nothing to scale."""
    if shape is None:
        return None
    centered = shape - shape.mean(0)
    length = math.sqrt((centered**2).sum() / len(centered))
    size = math.sqrt((shape**2).sum() / len(shape))
    return centered / length if length > 1e-6 * size else None


def _coordinates(centroids: npt.NDArray[np.floating], most: int) -> Floats:
    """Centered centroids [K, r] with r <= most: as they are, or in their principal axes where that needs fewer dims.

    Distances are kept exactly where r dims suffice (always if min(K - 1, d) <= most), else in least squares.
    """
    centered = np.asarray(centroids, np.float64)
    centered = centered - centered.mean(0)
    if centered.shape[1] <= most:
        return centered
    left, lengths, _ = np.linalg.svd(centered, full_matrices=False)
    left = left[:, :most] * np.where(left[np.abs(left).argmax(0), range(left.shape[1])] < 0, -1, 1)[:most]
    return left * lengths[:most]


def _axes(levels: Sequence[npt.NDArray[np.floating]], mean: Floats, seed: int) -> Iterator[Floats]:
    """For each level orthonormal rows [1 + r, H]: its own axis, then those of its shape; at right angles to the mean.

    One frame for all levels where H has room, so that levels are orthogonal; else one for each.
    """
    width = len(mean)
    needs = [1 + max(0, min(centroids.shape[1], len(centroids) - 1, width - 2)) for centroids in levels]
    if sum(needs) < width:
        frame = _frame(mean, sum(needs), np.random.default_rng([seed]))
        ends = np.cumsum(needs)
        yield from (frame[end - need : end] for end, need in zip(ends, needs, strict=True))
        return
    for level, need in enumerate(needs):
        yield _frame(mean, need, np.random.default_rng([seed, level]))


def _frame(mean: Floats, n: int, draw: np.random.Generator) -> Floats:
    """n random orthonormal rows [n, H], at right angles to the mean; equal draws give equal rows."""
    columns = draw.standard_normal((len(mean), 1 + n))
    if mean.any():
        columns[:, 0] = mean
    axes, triangle = np.linalg.qr(columns)
    return np.ascontiguousarray((axes * np.where(np.diag(triangle) < 0, -1, 1)).T[1:])


# ---- what the items say


def read_texts(
    ids: SemanticIDTokenizer,
    tokenizer: PreTrainedTokenizerBase,
    known: npt.NDArray[np.bool_],
    *,
    progress: bool = False,
) -> Texts:
    """Tokenize the texts of up to MOST_TEXTS live items, the first TEXT_TOKENS tokens of each, in batches.

    Each item counts once under each of its L codes, each of its tokens equally. Tokens without `known` [V] set have
    no old row and do not count.
    """
    live = np.flatnonzero(np.asarray(ids.ledger.live))
    if len(live) > MOST_TEXTS:
        live = live[np.linspace(0, len(live) - 1, MOST_TEXTS).astype(np.int64)]
    codes = ids.vocabulary.token_ids(ids.ledger.codes[live], 0)
    shares, counts = _Shares(sum(ids.sizes), len(known)), np.zeros(sum(ids.sizes), np.int64)
    with bar("reading texts", len(live), shown=progress) as advance:
        for start in range(0, len(live), TEXT_BATCH):
            batch = live[start : start + TEXT_BATCH].tolist()
            tokens = first_tokens(tokenizer, [ids.texts[row] for row in batch], known)
            lengths = np.array([len(row) for row in tokens])
            of_item = np.repeat(np.arange(len(batch)), lengths)
            flat = np.array([token for row in tokens for token in row], np.int64)
            for under in codes[start : start + len(batch)].T:
                shares.add(under[of_item], flat, 1 / lengths[of_item])
                counts += np.bincount(under[lengths > 0], minlength=len(counts))
            advance(len(batch))
    return Texts(shares.divided(np.maximum(counts, 1)), counts)


class _Shares:
    """A sparse sum [n_codes, V] of many small pieces, put together only when they have grown as large as it is."""

    def __init__(self, n_codes: int, n_rows: int) -> None:
        from scipy.sparse import csc_array

        self.total = csc_array((n_codes, n_rows))
        self.pieces: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]] = []
        self.waiting = 0

    def add(self, codes: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], weights: Floats) -> None:
        self.pieces.append((codes, tokens, weights))
        self.waiting += len(codes)
        if self.waiting > max(SHARES_WAITING, self.total.nnz):
            self._collect()

    def divided(self, by: npt.NDArray[np.int64]) -> csc_array:
        """The sum, each row divided by a number."""
        self._collect()
        self.total.data /= by[self.total.indices]
        return self.total

    def _collect(self) -> None:
        from scipy.sparse import coo_array

        if self.pieces:
            codes, tokens, weights = map(np.concatenate, zip(*self.pieces, strict=True))
            self.total = self.total + coo_array((weights, (codes, tokens)), self.total.shape).tocsc()
            self.pieces, self.waiting = [], 0


def _text_means(texts: Texts, blocks: Blocks, width: int) -> Floats:
    """Mean rows of what the items under each code say: float64 [sum of K, H]."""
    means = np.zeros((texts.shares.shape[0], width))
    for start, block in blocks():
        means += texts.shares[:, start : start + len(block)] @ block.astype(np.float64)
    return means


def _text_shape(means: Floats, has_items: npt.NDArray[np.bool_], fallback: Floats | None) -> Floats | None:
    """The shape [K, H] of text means; codes without items, or a level without differences, keep the fallback."""
    shape = _unit(means[has_items]) if has_items.any() else None
    if shape is None or fallback is None:
        return fallback
    whole = fallback.copy()
    whole[has_items] = shape
    return whole
