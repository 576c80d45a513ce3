"""Vocabularies as their makers ship them -> `tokenizers.Tokenizer`: tiktoken ranks, Tekken, SentencePiece, GGUF.

A rank file says which byte strings are tokens and in which order they were learned, and leaves the merges to be
found. One merge per token is enough. Encoders join the adjacent pair whose union has the lowest rank. At the
moment when parts p and q become the token pq, no join has crossed its ends, so all joins inside it came in the
order in which they come when pq stands alone: p and q are always the last two parts of pq by itself.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

if TYPE_CHECKING:
    from gguf import GGUFReader

__all__ = [
    "byte_level", "gguf_to_bpe", "last_joins", "ranks_to_bpe", "read_ranks", "read_sentencepiece",
    "sentencepiece_to_bpe", "tekken_to_bpe",
]  # fmt: skip

# GPT-2's alphabet: printable bytes of Latin-1 are themselves, the other 68 are the characters from 256 on.
PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
ALPHABET = {byte: 256 + place for place, byte in enumerate(sorted(set(range(256)) - PRINTABLE))}

TEKKEN_SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # types of SentencePiece's pieces, and of GGUF's tokens


# ---- ranks


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token -> rank of a tiktoken file, gzipped or not: a token in base64 and its rank in each line."""
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def ranks_to_bpe(ranks: Mapping[bytes, int], split: str, *, special: Sequence[str] = ()) -> Tokenizer:
    """Byte-level BPE whose ids are the special tokens, in order, and then the ranks.

    Parameters
    ----------
    split : regular expression of the pieces that are encoded one by one; a piece that is a token stays whole.
    special : tokens in front of the others. Those behind are for the caller to add.
    """
    printable = {token.decode("latin-1").translate(ALPHABET): rank for token, rank in ranks.items()}
    vocabulary = {token: i for i, token in enumerate(special)}
    vocabulary.update((token, rank + len(special)) for token, rank in printable.items())
    bpe = models.BPE(vocab=vocabulary, merges=list(last_joins(printable)), ignore_merges=True)
    tokenizer = byte_level(bpe, pre_tokenizers.Split(Regex(split), "isolated"))
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def last_joins(ranks: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The last join of each token that joins can make, by rank.

    >>> list(last_joins({"a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4, "xyz": 5}))
    [('a', 'b'), ('b', 'a'), ('ab', 'a')]
    """
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = [cut for cut in range(1, len(token)) if token[:cut] in ranks and token[cut:] in ranks]
        parts = [token[: cuts[0]], token[cuts[0] :]] if len(cuts) == 1 else _joined(token, ranks) if cuts else []
        if len(parts) == 2:
            yield parts[0], parts[1]


def _joined(token: str, ranks: Mapping[str, int]) -> list[str]:
    """Join the characters of a token, lowest rank and leftmost first, until two parts are left or none can be."""
    parts = list(token)
    while len(parts) > 2:
        unions = [ranks.get(left + right, len(ranks)) for left, right in zip(parts, parts[1:], strict=False)]
        lowest = min(unions)
        if lowest == len(ranks):
            break
        at = unions.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def byte_level(bpe: models.BPE, splitter: pre_tokenizers.PreTokenizer) -> Tokenizer:
    """A tokenizer of bytes in GPT-2's alphabet, split by `splitter` alone."""
    tokenizer = Tokenizer(bpe)
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter, spell])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def tekken_to_bpe(path: Path) -> Tokenizer:
    """Mistral's Tekken, a JSON file without names of the special tokens: they have the first ids, ranks the others."""
    record = json.loads(path.read_bytes())
    config = record["config"]
    n_special = config["default_num_special_tokens"]
    special = [*TEKKEN_SPECIAL, *(f"<SPECIAL_{rank}>" for rank in range(len(TEKKEN_SPECIAL), n_special))]
    entries = record["vocab"][: config["default_vocab_size"] - n_special]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in entries}
    return ranks_to_bpe(ranks, config["pattern"], special=special)


# ---- SentencePiece


class Piece(NamedTuple):
    """A token of a SentencePiece model."""

    text: str
    score: float
    kind: int


def read_sentencepiece(data: bytes) -> tuple[list[Piece], bool]:
    """Pieces of a BPE model, and whether it puts a space in front of every text."""
    pieces, dummy_prefix = [], True
    for field, value in _fields(data):
        inner = dict(_fields(value)) if field in (1, 2, 3) else {}
        if field == 1:
            score = struct.unpack("<f", inner[2])[0] if 2 in inner else 0.0
            pieces.append(Piece(inner[1].decode(), score, inner.get(3, NORMAL)))
        elif field == 2 and inner.get(3, 1) != 2:
            raise ValueError(f"model type {inner.get(3, 1)} should be 2, BPE")
        elif field == 3:
            dummy_prefix = bool(inner.get(3, True))
    return pieces, dummy_prefix


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol-buffer message; fixed-width numbers as their bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        number = shift = 0
        while True:
            byte = message[place]
            place += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while place < len(message):
        field, wire = divmod(varint(), 8)
        if wire == 0:
            yield field, varint()
            continue
        width = {1: 8, 5: 4}.get(wire) or varint()
        yield field, message[place : place + width]
        place += width


def sentencepiece_to_bpe(path: Path, *, prepend: bool = False) -> Tokenizer:
    """SentencePiece BPE with byte fallback; control pieces become special tokens.

    With `prepend` a normalizer puts the space in front and makes it `▁`, as in the tokenizer.json files of
    Llama 2 and Mistral 7B v0.1; it does so anew after each added token. Else a pre-tokenizer does, once.
    """
    pieces, dummy_prefix = read_sentencepiece(path.read_bytes())
    vocabulary = {piece.text: token_id for token_id, piece in enumerate(pieces)}
    learned = [piece for piece in pieces if piece.kind == NORMAL]
    ranks = {piece.text: rank for rank, piece in enumerate(sorted(learned, key=lambda piece: -piece.score))}
    unknown = next(piece.text for piece in pieces if piece.kind == UNKNOWN)
    fallback = any(piece.kind == BYTE for piece in pieces)
    merges = list(last_joins(ranks))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback))
    if prepend:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        scheme = "first" if dummy_prefix else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if dummy_prefix else []))
    tokenizer.add_special_tokens([piece.text for piece in pieces if piece.kind in (UNKNOWN, CONTROL)])
    return tokenizer


# ---- GGUF


def gguf_to_bpe(reader: GGUFReader) -> Tokenizer:
    """Byte-level BPE of an opened GGUF file whose digits stand alone, as SmolLM's do."""
    tokens, merges, kinds = (
        reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")
    )
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    bpe = models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges])
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer
