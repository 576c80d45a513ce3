"""Train a small transformer that ranks a whole catalog from a history, in about a minute and from nothing.

    python docs/examples/item_head.py                    # on histories made up in the shape of MovieLens latest small
    python docs/examples/item_head.py histories.jsonl    # on your own, in a format of semid.read_interactions

Every item is a token. The model reads "<items> next", and the state behind "next" ranks all items at once. In each
epoch other items of each history are hidden and asked for. Of each user a tenth of the items is kept for validation
and a fifth for the test. With a pretrained model all is the same but `Ranker.states`: there the items' tokens and rows
are added with `extend`, and the words between them mean something.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from semid import read_interactions
from semid.data.interactions import Interactions
from semid.tokenizer_exports import EntityNames, ItemHead, SoftHardPrompts, TokenRows, Wording, add_entities
from semid.tokenizer_exports.entities.item_head import ItemRows, last_states
from semid.tokenizer_exports.entities.soft_prompts import collate

WIDTH, BATCH, AT_MOST = 128, 32, 128  # dims; users at once; items of a history that are read in training
HIDDEN, DROPOUT = 0.4, 0.4  # share of a history that is hidden and asked for; of the numbers that go in and come out
FIRST_LENGTH = 0.16  # root mean square of the numbers in the first rows: large enough to tell items apart at once


@dataclass(frozen=True)
class Split:
    """Item numbers of each user, in three parts."""

    n_items: int
    train: list[np.ndarray]
    valid: list[np.ndarray]
    test: list[np.ndarray]

    @classmethod
    def at_random(cls, log: Interactions, seed: int = 0) -> Split:
        draws, parts = np.random.default_rng(seed), []
        for start, stop in zip(log.offsets[:-1], log.offsets[1:], strict=True):
            items = draws.permutation(log.items[start:stop].astype(np.int64))
            n_test, n_valid = round(len(items) * 0.2), round(len(items) * 0.1)
            parts.append(np.split(items, [len(items) - n_test - n_valid, len(items) - n_test]))
        return cls(len(log.item_ids), *map(list, zip(*parts, strict=True)))

    @property
    def known(self) -> list[np.ndarray]:
        """Training and validation together: what is known when the test comes."""
        return [np.concatenate(both) for both in zip(self.train, self.valid, strict=True)]

    def matrix(self, histories: list[np.ndarray]) -> csr_array:
        """float32 [U, N]: 1 where a user met an item."""
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in histories])])
        items = np.concatenate(histories)
        return csr_array((np.ones(len(items), np.float32), items, offsets), shape=(len(histories), self.n_items))


def figures(scores: np.ndarray, seen: list[np.ndarray], wanted: list[np.ndarray]) -> tuple[float, float]:
    """Recall@20 and NDCG@100 over all items that the user has not seen, mean over users with something to find.

    Recall is of min(20, how many there are to find).
    """
    gains, recalls, ndcgs = 1 / np.log2(np.arange(2, 102)), [], []
    for row, known, held_out in zip(scores, seen, wanted, strict=True):
        if len(held_out):
            row = row.copy()
            row[known] = -np.inf
            found = np.isin(np.argsort(-row, kind="stable")[:100], held_out)
            recalls.append(found[:20].sum() / min(20, len(held_out)))
            ndcgs.append(gains[: len(found)][found].sum() / gains[: len(held_out)].sum())
    return float(np.mean(recalls)), float(np.mean(ndcgs))


def behavior_vectors(met: csr_array, dims: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Users float32 [U, dims] and items [N, dims] from the largest components; items that all meet count less."""
    from sklearn.utils.extmath import randomized_svd

    weighed = met / np.sqrt(np.sqrt(np.maximum(met.sum(0), 1)))
    parts, sizes, axes = randomized_svd(csr_array(weighed), dims, n_iter=4, random_state=0)
    missing = ((0, 0), (0, dims - len(sizes)))  # there are no more components than users
    both = (np.pad(one * np.sqrt(sizes), missing) for one in (parts, axes.T))
    return tuple((one * (FIRST_LENGTH / np.sqrt((one**2).mean()))).astype(np.float32) for one in both)


class Ranker:
    """A transformer of one layer with an item head.

    Parameters
    ----------
    split : whose training part is learned from
    rows : where the items' rows come from; by default each has one of its own that starts from behavior
    users : whether a token of the user, with a row that is learned too, begins the prompt
    """

    def __init__(self, split: Split, rows: ItemRows | None = None, *, users: bool = False, seed: int = 0) -> None:
        torch.manual_seed(seed)
        words = Tokenizer(models.WordLevel({"[PAD]": 0, " next": 1}, unk_token="[PAD]"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
        self.entities = add_entities(tokenizer, EntityNames(users * len(split.train), split.n_items))
        self.split, self.seed = split, seed
        wording = Wording(recommendation="{user}{history} next" if users else "{history} next")
        choices = {"wording": wording, "hidden": HIDDEN, "seed": seed}
        self.prompts = SoftHardPrompts(tokenizer, self.entities, max_items=AT_MOST, **choices)
        self.questions = SoftHardPrompts(tokenizer, self.entities, max_items=2 * AT_MOST, **choices)
        self.model = Qwen3Model(
            Qwen3Config(
                vocab_size=self.entities.items.stop,
                hidden_size=WIDTH,
                intermediate_size=WIDTH,
                num_hidden_layers=1,
                num_attention_heads=4,
                num_key_value_heads=4,
                head_dim=WIDTH // 4,
                attention_dropout=DROPOUT,
            )
        )
        met = split.matrix(split.train)
        embedding, own = self.model.get_input_embeddings(), self.entities.users
        first_users, first_items = map(torch.from_numpy, behavior_vectors(met))
        with torch.no_grad():
            embedding.weight[own.start : own.stop] = first_users[: len(own)]
            if rows is None:
                rows = TokenRows(embedding, self.entities.items)
                rows.rows().copy_(first_items)
        popularity = torch.from_numpy(np.log(met.sum(0) + 0.5))
        self.head = ItemHead(rows, bias=popularity - popularity.mean(), scale=WIDTH**-0.5)
        self.dropout = nn.Dropout(DROPOUT)
        self.parts = nn.ModuleList([self.model, self.head, self.dropout])

    def states(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The state [B, H] behind each prompt; an item goes in with the row that it is scored with."""
        token_ids, first = batch["input_ids"], self.entities.items.start
        items = nn.functional.embedding((token_ids - first).clamp(min=0), self.head.rows.rows())
        words = self.model.get_input_embeddings()(token_ids.clamp(max=first - 1))
        inputs = self.dropout(torch.where((token_ids >= first)[..., None], items, words))
        states = self.model(inputs_embeds=inputs, attention_mask=batch["attention_mask"]).last_hidden_state
        return self.dropout(last_states(states, batch["attention_mask"]))

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """How far the hidden items are from the top."""
        return self.head.loss(self.states(batch), batch["targets"], seen=batch["seen"])

    def batches(self, epoch: int) -> Iterator[dict[str, torch.Tensor]]:
        """All users once, each with other items hidden; those with histories of about one length in one batch."""
        users = np.flatnonzero([len(items) > 1 for items in self.split.train])
        documents = [self.prompts.recommendation(int(u), self.split.train[u], epoch=epoch) for u in users]
        draws = np.random.default_rng([self.seed, epoch])
        order = np.argsort([len(one["input_ids"]) + 40 * draws.random() for one in documents])
        starts = draws.permutation(np.arange(0, len(order), BATCH))
        yield from (collate([documents[place] for place in order[at : at + BATCH]], pad_id=0) for at in starts)

    def learn(self, epochs: int, rate: float = 3e-3) -> None:
        """Train on the training part."""
        n_steps = epochs * -(-sum(len(items) > 1 for items in self.split.train) // BATCH)
        optimizer = torch.optim.AdamW(self.parts.parameters(), rate, weight_decay=0.01)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=n_steps + 1, pct_start=0.1)
        self.parts.train()
        for epoch in range(epochs):
            for batch in self.batches(epoch):
                loss = self.loss(batch)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0)
                optimizer.step()
                rates.step()

    @torch.no_grad()
    def scores(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 [U, N]: one forward pass for every 32 users."""
        self.parts.eval()
        found = np.zeros((len(histories), self.split.n_items), np.float32)
        order = np.argsort([len(items) for items in histories])
        for start in range(0, len(order), BATCH):
            users = order[start : start + BATCH]
            documents = [self.questions.question(int(user), histories[user]) for user in users]
            found[users] = self.head(self.states(collate(documents, pad_id=0))).numpy()
        return found


def made_up(n_users: int = 610, n_items: int = 3000, seed: int = 0) -> Interactions:
    """Users with tastes in 16 dims and items of unequal popularity; half of the histories longer than 71, as there."""
    draws = np.random.default_rng(seed)
    tastes, natures = draws.standard_normal((n_users, 16)), draws.standard_normal((n_items, 16))
    appeal = draws.permutation(np.log(1 / np.arange(20, n_items + 20))) + 0.5 * tastes @ natures.T
    order = np.argsort(-(appeal + draws.gumbel(size=appeal.shape)), axis=1)  # a draw without replacement
    lengths = np.clip(np.exp(draws.normal(np.log(71), 1, n_users)), 20, n_items // 4).astype(int)
    items = [[f"i{item:04}" for item in row[:length]] for row, length in zip(order, lengths, strict=True)]
    return read_interactions([{"user": f"u{user:03}", "items": one} for user, one in enumerate(items)])


def main(path: str | None, epochs: int = 20) -> None:
    torch.set_num_threads(1)
    split = Split.at_random(read_interactions(path) if path else made_up())
    popular = np.tile(split.matrix(split.train).sum(0), (len(split.train), 1))
    ranker = Ranker(split)
    ranker.learn(epochs)
    for name, scores in (("popularity", popular), ("item head", ranker.scores(split.known))):
        recall, ndcg = figures(scores, split.known, split.test)
        sys.stdout.write(f"{name:<12} Recall@20 {recall:.3f}  NDCG@100 {ndcg:.3f}\n")


if __name__ == "__main__":
    main(*sys.argv[1:2] or [None])
