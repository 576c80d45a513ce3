"""The catalog in the layout of STATIC, Google's constrained decoder: a transition table for accelerators.

STATIC (github.com/youtube/static-constraint-decoding; "Vectorizing the Trie", arXiv 2602.22647) decodes with the six
arrays that its `build_static_index` returns. `static_arrays` computes them from the trie in one pass:

    packed_csr           int32 [transitions + V, 2]    (token id, next state), sorted by state, then token; V rows
                                                       (V, 0) of padding at the end
    indptr               int32 [states + 2]            the transitions of state s are rows indptr[s]:indptr[s + 1];
                                                       one more state holds the padding
    layer_max_branches   int32 [L]                     the most tokens that may follow at each level
    start_mask           bool [V]                      which tokens begin an ID
    dense_mask           bool [V] or [V, V]            which first d tokens begin an ID, d = 1 or 2 dense levels
    dense_states         int32, the same shape         the state after them, 0 where there is none
    token_range          int64 [2]                     ours: token id of the first code, one past the last

States: 0 is the end of an ID, t + 1 the prefix of one token t; longer prefixes follow from V + 1 on, level by level
in lexicographic order. Every walk of L tokens ends in 0 and is an item.

V is the width of the vocabulary. Without a base it is the block alone: token t is place t of the block, so slice the
model's logits to `logits[..., base : base + V]`. With a base the token ids are the model's and V ends at the block's
last token: slice to `logits[..., :V]`. Two dense levels take 5 V^2 bytes, which only a small V can afford.

Not here: item ids. STATIC does not keep them; `ids.decode` or `Trie.rows_of` turns tokens into items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.trie import Trie

__all__ = ["static_arrays"]

MOST_DENSE = 1 << 28  # bytes of the two dense tables; above, one level is dense
MOST_STATES = 2**31 - 1


def static_arrays(
    trie: Trie, n_tokens: int, *, base: int | None = None, dense_levels: int | None = None
) -> dict[str, npt.NDArray]:
    """Return STATIC's arrays for a trie, as listed at the top of the module.

    Parameters
    ----------
    trie
        The live items.
    n_tokens
        Tokens in the block, markers included: `len(ids.vocabulary)`.
    base
        Token id of the first code in a language model. Default: None, a vocabulary that is the block alone.
    dense_levels
        1 or 2, and below L; STATIC supports no more. Default: 2 where the tables take at most 256 MB.

    Raises
    ------
    ConfigError
        The IDs have one level, or `dense_levels` is out of range or too large for the vocabulary.

    >>> arrays = static_arrays(Trie.from_codes([[0, 1], [0, 2], [1, 0]], sizes=(2, 3)), 5)
    >>> arrays["indptr"].tolist()    # no transitions of the end, two after token 0, one after token 1
    [0, 0, 2, 3, 3, 3, 3, 8]
    >>> arrays["packed_csr"][:3].tolist()
    [[3, 0], [4, 0], [2, 0]]
    """
    first = 0 if base is None else base
    width = first + n_tokens
    dense = _checked_dense(dense_levels, width, trie.n_levels)
    # A prefix of one code is named after its token; deeper nodes of the trie keep their order behind these.
    second, items = trie.level_starts[2], trie.level_starts[-2]
    if width + items > MOST_STATES:
        raise ConfigError(f"{width + items:,} states should be at most {MOST_STATES:,}. Export a smaller catalog.")
    tokens = _tokens_of_nodes(trie, first)
    states = np.zeros(len(trie.codes), np.int32)  # of each node; items are the end
    states[1:second] = tokens[1:second] + 1
    states[second:items] = np.arange(width + 1, width + 1 + items - second, dtype=np.int32)

    lengths = np.zeros(width + 1 + max(items - second, 0) + 1, np.int32)  # transitions of each state, and padding
    children = np.diff(trie.ptr)
    lengths[states[1:items]] = children[1:items]
    lengths[-1] = width
    indptr = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=indptr[1:])

    transitions = np.empty((len(trie.codes) - second + width, 2), np.int32)
    transitions[:-width, 0] = tokens[second:]
    transitions[:-width, 1] = states[second:]
    transitions[-width:] = (width, 0)

    start_mask = np.zeros(width, np.bool_)
    start_mask[tokens[1:second]] = True
    dense_states = _dense_states(trie, tokens, states, width, dense)
    return {
        "packed_csr": transitions,
        "indptr": indptr,
        "layer_max_branches": np.array(trie.fanout, np.int32),
        "start_mask": start_mask,
        "dense_mask": start_mask if dense == 1 else _pairs_mask(trie, tokens, width),
        "dense_states": dense_states,
        "token_range": np.array([first, first + trie.offsets[-1]], np.int64),
    }


def _checked_dense(dense_levels: int | None, width: int, n_levels: int) -> int:
    if n_levels < 2:
        raise ConfigError("levels=1: STATIC needs IDs of at least 2 codes. Use --to flashrec or semid's own trie.")
    size = 5 * width**2
    if dense_levels is None:
        return 2 if n_levels > 2 and size <= MOST_DENSE else 1
    most = min(2, n_levels - 1)
    if not 1 <= dense_levels <= most:
        raise ConfigError(f"dense_levels={dense_levels} should be 1{' or 2' if most == 2 else ''}, fewer than levels.")
    if dense_levels == 2 and size > 8 * MOST_DENSE:
        raise ConfigError(
            f"dense_levels=2 takes {size / 1e9:,.1f} GB at a vocabulary of {width:,}. Use 1, or leave --base out for "
            f"a vocabulary of the block alone."
        )
    return dense_levels


def _tokens_of_nodes(trie: Trie, first: int) -> npt.NDArray[np.int32]:
    """Return the token id that leads to each node, int32 [nodes]; meaningless for the root."""
    tokens = trie.codes.astype(np.int32)
    for level in range(trie.n_levels):
        tokens[trie.level_starts[level + 1] : trie.level_starts[level + 2]] += first + trie.offsets[level]
    return tokens


def _pairs(trie: Trie, tokens: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the two tokens of each prefix of length 2."""
    second, third = trie.level_starts[2], trie.level_starts[3]
    return np.repeat(tokens[1:second], np.diff(trie.ptr[1 : second + 1])), tokens[second:third]


def _pairs_mask(trie: Trie, tokens: npt.NDArray[np.int32], width: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((width, width), np.bool_)
    mask[_pairs(trie, tokens)] = True
    return mask


def _dense_states(
    trie: Trie, tokens: npt.NDArray[np.int32], states: npt.NDArray[np.int32], width: int, dense: int
) -> npt.NDArray[np.int32]:
    table = np.zeros((width,) * dense, np.int32)
    if dense == 1:
        table[tokens[1 : trie.level_starts[2]]] = states[1 : trie.level_starts[2]]
    else:
        table[_pairs(trie, tokens)] = states[trie.level_starts[2] : trie.level_starts[3]]
    return table
