"""What generate_items is tested against: every item's score by teacher forcing, a plain beam search, tiny models.

Nothing of semid's generation is used here. Items are tuples of codes; token id = base + offset of the level + code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

Codes = tuple[int, ...]

VOCABULARY, BASE = 128, 90
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
SEQ2SEQ = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2,
    "num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6,
}  # fmt: skip


def new_model(
    kind: type[PreTrainedModel], choices: dict[str, object], *, shape: dict[str, object] = SHAPE, spread: float = 0.25
) -> PreTrainedModel:
    """A random model, its weights far enough apart that attention matters."""
    torch.manual_seed(0)
    model = kind(kind.config_class(**{**shape, **choices}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, spread) if parameter.dim() > 1 else None
        head = model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            head.bias.normal_(0, 1)
    return model.eval()


def qwen3(**choices: object) -> PreTrainedModel:
    return new_model(transformers.Qwen3ForCausalLM, {"head_dim": 8, **choices})


def items_of(sizes: Sequence[int], count: int, seed: int = 0) -> list[Codes]:
    """Distinct items in any order."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(int(np.prod(sizes)))[:count]
    return [tuple(map(int, np.unravel_index(place, sizes))) for place in places]


def offsets_of(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()]


def token_ids(codes: Codes, sizes: Sequence[int], base: int = BASE) -> list[int]:
    return [base + offset + code for offset, code in zip(offsets_of(sizes), codes, strict=False)]


@torch.no_grad()
def token_scores(
    model: PreTrainedModel,
    prompt: Sequence[int],
    items: Sequence[Codes],
    sizes: Sequence[int],
    score: str,
    base: int = BASE,
) -> np.ndarray:
    """float64 [items, d]: the log-probability of each token of each item (of d codes), one plain forward in all."""
    tokens = torch.tensor([token_ids(item, sizes, base) for item in items])
    before = torch.tensor([list(prompt)]).expand(len(items), -1)
    if model.config.is_encoder_decoder:
        start = torch.full((len(items), 1), model.config.decoder_start_token_id)
        outputs = model(input_ids=before, decoder_input_ids=torch.cat([start, tokens], dim=1), use_cache=False)
    else:
        outputs = model(input_ids=torch.cat([before, tokens], dim=1), use_cache=False)
    depth, offsets = tokens.shape[1], offsets_of(sizes)
    logits = outputs.logits[:, -depth - 1 : -1].double()
    columns = []
    for level in range(depth):
        first = base + offsets[level]
        scored = logits[:, level] if score == "vocab" else logits[:, level, first : first + sizes[level]]
        at = tokens[:, level] - (0 if score == "vocab" else first)
        columns.append(scored.log_softmax(-1).gather(1, at.unsqueeze(1)).squeeze(1))
    return torch.stack(columns, dim=1).numpy()


def item_scores(
    model: PreTrainedModel, prompt: Sequence[int], items: Sequence[Codes], sizes: Sequence[int], score: str
) -> np.ndarray:
    """float64 [items]."""
    return token_scores(model, prompt, items, sizes, score).sum(axis=1)


def plain_beams(
    model: PreTrainedModel, prompt: Sequence[int], items: Iterable[Codes], sizes: Sequence[int], score: str, beams: int
) -> list[tuple[Codes, float]]:
    """Beam search over a set of tuples, every prefix scored from scratch; best first."""
    items = set(items)
    kept: list[Codes] = [()]
    for depth in range(1, len(sizes) + 1):
        grown = sorted({item[:depth] for item in items if item[: depth - 1] in kept})
        scores = token_scores(model, prompt, grown, sizes, score).sum(axis=1)
        best = sorted(zip(-scores, grown, strict=True))[:beams]
        kept = [prefix for _, prefix in best]
    return [(item, -negative) for negative, item in best]


def allowed_tokens(
    items: Iterable[Codes], sizes: Sequence[int], length: int
) -> Callable[[int, torch.Tensor], list[int]]:
    """A prefix_allowed_tokens_fn for prompts of one padded length, over a dict."""
    following: dict[tuple[int, ...], set[int]] = {}
    for item in items:
        tokens = tuple(token_ids(item, sizes))
        for depth, token in enumerate(tokens):
            following.setdefault(tokens[:depth], set()).add(token)
    return lambda batch_id, ids: sorted(following[tuple(ids[length:].tolist())])


def stock_beams(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], items: Sequence[Codes], sizes: Sequence[int], beams: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, beams, L] and scores [B, beams] of transformers' own constrained beam search."""
    length = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    out = model.generate(
        **inputs,
        prefix_allowed_tokens_fn=allowed_tokens(items, sizes, length),
        max_new_tokens=len(sizes),
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=True,
        eos_token_id=None,
        forced_eos_token_id=None,
        return_dict_in_generate=True,
        output_scores=True,
    )
    n_prompts = len(inputs["input_ids"])
    return out.sequences[:, length:].view(n_prompts, beams, -1), out.sequences_scores.view(n_prompts, beams)


def padded(prompts: Sequence[Sequence[int]], side: str = "left") -> dict[str, torch.Tensor]:
    """input_ids and attention_mask; padded with token 0."""
    width = max(map(len, prompts))
    rows, masks = [], []
    for prompt in prompts:
        gap = [0] * (width - len(prompt))
        left = side == "left"
        rows.append([*gap, *prompt] if left else [*prompt, *gap])
        masks.append([*gap, *[1] * len(prompt)] if left else [*[1] * len(prompt), *gap])
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}
