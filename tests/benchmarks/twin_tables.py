"""A second table of the same items, learned from their texts, and the price of the two tables' distance.

    ranker = Twins(split, texts, price=1.0)      # 0: nothing of the texts reaches the ranking
    ranker.learn(30)

CLLM4Rec's mutual regularization in small. One side ranks items from histories, as `Ranker` of the example does; the
other reads "item_4 is" and foretells the item's words. Both tables start from behavior. The content side first learns
alone, then the sides take turns; each pays for the distance of the rows in its batch from the other's, which stand
still. Both sides have a transformer of their own here, where CLLM4Rec has one that is frozen.

N items, B texts.
"""

from __future__ import annotations

import re
import runpy
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from semid.tokenizer_exports import EntityNames, SoftHardPrompts, TokenRows, Wording, add_entities
from semid.tokenizer_exports.entities.item_head import mutual_regularization, scored_loss
from semid.tokenizer_exports.entities.soft_prompts import collate

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "examples" / "item_head.py"), run_name="example")
Ranker = EXAMPLE["Ranker"]

ALONE, TURNS = 3, 12  # epochs of the content side before the first turn; its batches in each epoch of the other
BATCH, MAX_WORDS = 128, 16
RARE = 3  # words of fewer items are unknown words
RATE = 3e-3


def word_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A token for each word that several items have."""
    counts = Counter(word for text in texts for word in set(re.findall(r"\w+", text.lower())))
    words = ["[PAD]", "[UNK]", *sorted(word for word, count in counts.items() if count >= RARE)]
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]")


class Content(nn.Module):
    """A transformer that foretells an item's words from its row; `rows` is the second table."""

    def __init__(self, texts: Sequence[str], first: torch.Tensor, config: Any, seed: int) -> None:
        super().__init__()
        tokenizer = word_tokenizer(texts)
        entities = add_entities(tokenizer, EntityNames(0, len(texts)))
        prompts = SoftHardPrompts(tokenizer, entities, wording=Wording(content="{item}"), max_words=MAX_WORDS)
        self.documents = [prompts.content(item, text.lower()) for item, text in enumerate(texts)]
        self.model = EXAMPLE["Qwen3Model"](type(config)(**{**config.to_dict(), "vocab_size": entities.items.stop}))
        self.rows = TokenRows(self.model.get_input_embeddings(), entities.items)
        with torch.no_grad():
            self.rows.rows().copy_(first)
        self.optimizer = torch.optim.AdamW(self.parameters(), RATE, weight_decay=0.01)
        self.draws = np.random.default_rng([seed, 1])

    def batches(self) -> Iterator[list[int]]:
        """Items in random order, without end."""
        while True:
            order = self.draws.permutation(len(self.documents))
            yield from (order[start : start + BATCH].tolist() for start in range(0, len(order), BATCH))

    def step(self, items: list[int], other: torch.Tensor, price: float) -> None:
        """Learn the texts of some items, near the other table [N, H]."""
        batch = collate([self.documents[item] for item in items], pad_id=0)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        states = self.model(**inputs).last_hidden_state
        loss = scored_loss(states, self.rows.embedding.weight, batch["labels"], batch["score_space"])
        loss = loss + price * mutual_regularization(self.rows.rows(), other, torch.tensor(items))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()


class Twins(Ranker):
    """The ranker of the example with user tokens, and a content side.

    The content side draws from a generator of its own, so at price 0 this is the ranker itself, number for number.
    """

    def __init__(self, split: Any, texts: Sequence[str], *, price: float, seed: int = 0, **choices: Any) -> None:
        super().__init__(split, users=True, seed=seed, **choices)
        self.price = price
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.content = Content(texts, self.head.rows.rows().detach(), self.model.config, seed)
            self.turns = self.content.batches()
            self._learn_content(ALONE * -(-len(texts) // BATCH))
            self.random_state = torch.get_rng_state()

    def batches(self, epoch: int) -> Iterator[dict[str, torch.Tensor]]:
        """The content side's turn, then the batches of the ranker."""
        with torch.random.fork_rng():
            torch.set_rng_state(self.random_state)
            self._learn_content(TURNS)
            self.random_state = torch.get_rng_state()
        yield from super().batches(epoch)

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """That of the ranking, and the price of the distance of the items that are shown or asked for."""
        shown = torch.from_numpy(self.entities.item_numbers(batch["input_ids"].numpy()))
        items = torch.cat([shown.flatten(), batch["targets"].flatten()])
        apart = mutual_regularization(self.head.rows.rows(), self.content.rows.rows(), items)
        return super().loss(batch) + self.price * apart

    def _learn_content(self, n_steps: int) -> None:
        self.content.train()
        for _ in range(n_steps):
            self.content.step(next(self.turns), self.head.rows.rows().detach(), self.price)
