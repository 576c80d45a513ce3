"""The small generative model that every table of IDs is given: a history as tokens in, the next item's tokens out.

A decoder of transformers reads the start token and the IDs of a history, oldest first, and learns to predict each next
token. Its tokens come from `semid.extend`, its items from `semid.generate_items`. It learns nothing of the items but
their IDs, and all tables get the same body, seed and stopping rule. It is a GPT-2, whose dropout small logs need.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from semid.evaluation import Bootstrap, RecommendationQuality, evaluate_recommendations
from semid.tokenizer_exports.generate import generate_items
from semid.tokenizer_exports.models import extend
from semid.trie import Trie
from tests.benchmarks.referee_parts.split import HISTORY, Cases, Rows, SplitLog
from tests.benchmarks.referee_parts.tables import IDTable

LENGTHS = (5, 10)  # of the lists that are measured
RETURNED = 20  # IDs of each list
PAD, START = 0, 1
WORDS = 64  # of the tokenizer before it is extended: rows that the new rows start like
PROMPTS = 128  # in one call of the model


@dataclass(frozen=True)
class Settings:
    """The model and how it learns."""

    dims: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.2
    rate: float = 1e-3
    weight_decay: float = 0.05
    batch: int = 64  # histories
    epochs: int = 100  # at most
    patience: int = 6  # epochs without a better validation NDCG@10
    validation_beams: int = 20
    validation_cases: int = 2000  # at most, drawn once


def measure(
    lists: object, cases: Cases, item_ids: list[str], catalog: dict[str, str] | None = None
) -> RecommendationQuality:
    """Score lists of items, or of IDs with a catalog of them, item by item."""
    wanted = [item_ids[row] for row in cases.wanted.tolist()]
    return evaluate_recommendations(
        lists, wanted, k=LENGTHS, catalog=catalog or item_ids, users=cases.users, bootstrap=Bootstrap(resamples=0)
    )


class Recommender:
    """A model with the tokens of a table."""

    def __init__(self, table: IDTable, item_ids: list[str], settings: Settings, seed: int, device: str = "cpu") -> None:
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=WORDS, n_positions=1 + (HISTORY + 1) * len(table.sizes), n_embd=settings.dims,
            n_layer=settings.layers, n_head=settings.heads, resid_pdrop=settings.dropout, embd_pdrop=settings.dropout,
            attn_pdrop=settings.dropout, bos_token_id=START, eos_token_id=START, pad_token_id=PAD,
        )  # fmt: skip
        words = WordLevel({f"word{number}": number for number in range(WORDS)}, unk_token=f"word{WORDS - 1}")
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
        self.model: PreTrainedModel = GPT2LMHeadModel(config)
        base = extend(self.tokenizer, self.model, table, init="default", seed=seed).base
        self.model.to(device)
        self.settings, self.seed, self.item_ids = settings, seed, item_ids
        self.tokens = table.vocabulary.token_ids(table.codes, base)  # (N, L)
        self.trie = Trie.from_codes(table.distinct, table.sizes, base=base)
        self.names = table.vocabulary.texts(table.distinct)
        self.catalog = dict(zip(item_ids, table.vocabulary.texts(table.codes), strict=True))

    def prompt(self, rows: Rows) -> list[int]:
        return [START, *self.tokens[rows].ravel().tolist()]

    def recommend(self, histories: list[Rows], beams: int) -> list[list[str]]:
        """Return the best IDs for each history, as text."""
        lists: list[list[str]] = [[]] * len(histories)
        order = sorted(range(len(histories)), key=lambda row: len(histories[row]))
        count = min(RETURNED, beams, len(self.trie))
        for start in range(0, len(order), PROMPTS):
            batch = order[start : start + PROMPTS]
            inputs, mask = padded([self.prompt(histories[row]) for row in batch], left=True)
            found = generate_items(
                self.model, {"input_ids": inputs, "attention_mask": mask}, self.trie, num_beams=beams, num_return=count
            )
            for row, ranked in zip(batch, found.rows.tolist(), strict=True):
                lists[row] = [self.names[one] for one in ranked]
        return lists

    def quality(self, cases: Cases, beams: int) -> RecommendationQuality:
        return measure(self.recommend(cases.histories, beams), cases, self.item_ids, self.catalog)

    def learn(self, log: SplitLog) -> list[float]:
        """Train until validation NDCG@10 stops rising; keep the best epoch. Return the NDCG@10 of all epochs."""
        settings, draws = self.settings, np.random.default_rng(self.seed)
        examples = self._examples(log.training)
        cases = log.validation.sample(settings.validation_cases)
        optimizer = torch.optim.AdamW(self.model.parameters(), settings.rate, weight_decay=settings.weight_decay)
        found, best = list[float](), self.model.state_dict()
        for _ in range(settings.epochs):
            self.model.train()
            order = draws.permutation(len(examples)).tolist()
            order.sort(key=lambda row: len(examples[row][0]))  # equal lengths together, in random order
            starts = range(0, len(order), settings.batch)
            for start in draws.permutation(starts).tolist():
                self._step([examples[row] for row in order[start : start + settings.batch]], optimizer)
            self.model.eval()
            found.append(self.quality(cases, settings.validation_beams)["ndcg@10"].value)
            waited = len(found) - 1 - int(np.argmax(found))
            if waited == 0:
                best = copy.deepcopy(self.model.state_dict())
            elif waited >= settings.patience:
                break
        self.model.load_state_dict(best)
        return found

    def _examples(self, histories: list[Rows]) -> list[tuple[list[int], int]]:
        """Return windows of at most HISTORY + 1 items as tokens, and how many of the first are no targets.

        Every item is a target once: a window that follows another begins with that one's last item.
        """
        examples = []
        for rows in filter(len, histories):
            for start in range(0, max(len(rows) - 1, 1), HISTORY):
                window = self.prompt(rows[start : start + HISTORY + 1])
                examples.append((window, 1 + (self.tokens.shape[1] if start else 0)))
        return examples

    def _step(self, batch: list[tuple[list[int], int]], optimizer: torch.optim.Optimizer) -> None:
        inputs, mask = (one.to(self.model.device) for one in padded([tokens for tokens, _ in batch]))
        given = torch.tensor([count for _, count in batch], device=inputs.device)
        ignored = (mask == 0) | (mask.cumsum(dim=1) <= given[:, None])
        logits = self.model(input_ids=inputs, attention_mask=mask, use_cache=False).logits[:, :-1]
        targets = inputs.masked_fill(ignored, -100)[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def padded(rows: list[list[int]], *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, int64 [B, P]."""
    width = max(map(len, rows))
    inputs, mask = torch.full((len(rows), width), PAD), torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        inputs[number, place], mask[number, place] = torch.tensor(row), 1
    return inputs, mask
