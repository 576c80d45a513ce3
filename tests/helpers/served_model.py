"""What the tests of serving serve, what their requests ask for, and what each row may then take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from semid.ledger.ledger import Ledger
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.generate.token_masker import TokenMasker
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors
from semid.tokenizer_exports.serving.batch_masks import BatchMasker
from semid.tokenizer_exports.serving.requests import Catalog, RequestOptions
from semid.tokens.vocabulary import Vocabulary
from tests.helpers.tiny_models import ITEMS, ids_of, new_tokenizer

__all__ = [
    "BASE",
    "EOS",
    "ITEM_IDS",
    "OPTIONS",
    "SALE",
    "VOCABULARY",
    "Reference",
    "a_prompt",
    "finite",
    "open_artifact",
    "other_catalog",
    "save_artifact",
    "save_model",
]

BASE, VOCABULARY, EOS = 20, 64, [1, 2]  # text below the block of 24 codes and two markers, and columns to spare
ITEM_IDS = [item["id"] for item in ITEMS]
SALE = ITEM_IDS[::3]
OPTIONS = [
    {},
    {"semid_mode": "off"},
    {"semid_mode": "items"},
    {"semid_mode": "items", "semid_max_items": 3, "semid_repeats": 0},
    {"semid_mode": "items", "semid_filter": "sale", "semid_min_items": 2},
    {"semid_filter": ["sale"], "semid_without": SALE[:2]},
    {"semid_without": ITEM_IDS[1:2], "semid_max_items": 2},
    {"semid_only": SALE, "semid_markers": 1},
    {"semid_mode": "items", "semid_only": ITEM_IDS[7:8], "semid_repeats": False, "semid_max_items": 2},
    {"semid_filter": "no-such-filter"},
]


def save_artifact(folder: Path) -> None:
    """An artifact as it lies in an extended model's folder, `model`, and a server's folder of filters, `filters`.

    Not learned, since vLLM's environment has nothing to learn with: 3 x 8 codes, some prefixes shared by many.
    """
    rng = np.random.default_rng(0)
    places = rng.choice(4 * 8 * 8, len(ITEM_IDS), replace=False)  # the first level uses half of its codes
    codes = np.stack(np.unravel_index(places, (4, 8, 8)), axis=1)
    ids = SemanticIDTokenizer(
        config=None,
        vocabulary=Vocabulary([8, 8, 8]),
        ledger=Ledger.create(ITEM_IDS, codes),
        learned=None,
        encoder_state=({}, {"kind": "none"}),
        provenance={"base": BASE},
    )
    ids.save_pretrained(folder / "model")
    _save_filter(folder / "filters", [*SALE, "sold-out"])  # an id that the catalog does not hold


def open_artifact(folder: Path) -> Catalog:
    """The catalog of what `save_artifact` wrote."""
    ids = SemanticIDTokenizer.from_pretrained(folder / "model")
    return Catalog(ids, base=BASE, filters=folder / "filters")


def save_model(folder: Path) -> None:
    """A random Qwen3 extended with the IDs, `shop-llm`, and `filters`; heads as wide as vLLM takes them on a CPU."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from semid.tokenizer_exports.models.on_disk import extend_folder

    tokenizer = new_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        head_dim=64, intermediate_size=128, max_position_embeddings=512, bos_token_id=None, pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    extend_folder(folder / "base", ids_of(), folder / "shop-llm")
    _save_filter(folder / "filters", SALE)


def _save_filter(folder: Path, item_ids: list[str]) -> None:
    folder.mkdir()
    (folder / "sale.txt").write_text("\n".join([*item_ids, ""]))


def a_prompt(rng: np.random.Generator, catalog: Catalog) -> list[int]:
    """Text, items, and perhaps an item that is cut off."""
    ids, prompt = catalog.ids, []
    for _ in range(rng.integers(0, 4)):
        tokens = ids.vocabulary.token_ids(ids.codes[rng.integers(len(ids))][None], BASE)[0]
        prompt += [*rng.integers(3, BASE, rng.integers(0, 3)), *tokens[: rng.choice([1, 2, 3, 3])]]
    return [int(token) for token in prompt]


def other_catalog(catalog: Catalog) -> Catalog:
    """The same codes a day later: as many items, one of them another."""
    item_ids = [*ITEM_IDS[:-1], "new today"]
    ids = replace(catalog.ids, ledger=Ledger.create(item_ids, catalog.ids.codes))
    return Catalog(ids, base=BASE)


class Reference:
    """What a request may take next: one row alone, its whole history given."""

    def __init__(self, catalog: Catalog) -> None:
        self.masker = BatchMasker(catalog, eos_ids=EOS)

    def allowed(self, options: dict | None, prompt: list[int], output: list[int]) -> list[int]:
        request = self.masker.request_constraint(RequestOptions.of(options))
        if request is None:
            return list(range(VOCABULARY))
        token_masker = TokenMasker(self.masker.trie, request.constraints, eos_ids=EOS)
        filters = None if request.filter is None else FilterTensors(request.filter, self.masker.trie, 1)
        return token_masker.allowed(
            torch.tensor([[*prompt, *output]], dtype=torch.long).reshape(1, -1),
            vocab_size=VOCABULARY,
            prompt_lengths=len(prompt) if request.constraints.counts else None,
            filters=filters,
        )[0]


def finite(row: torch.Tensor) -> list[int]:
    return row.isfinite().nonzero().flatten().tolist()
