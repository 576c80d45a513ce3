"""Recommendation adaptation training (RAT): LLMEmb's second stage, for item vectors that a recommender starts from.

    text vector [D] -> linear -> [D / 2] -> linear -> [d] -> SASRec -> the next item

The two linear layers learn with the recommender: binary cross-entropy of the next item against one random item, and
0.01 times a contrastive loss that pulls an item's vector to its collaborative one, which an earlier SASRec learned for
each item by its number (arXiv 2409.19925). As published, but for its defects: a position does not see later ones, no
item has the zero vector of the padding, and the steps are chosen by ranking the whole catalog. N items, D and d dims.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from semid.adaptation.adapter import Dense, Learned
from semid.adaptation.behavior import Behavior
from semid.adaptation.config import RAT, AdaptConfig
from semid.adaptation.losses import soft_target_loss
from semid.adaptation.report import NextItems, Scores
from semid.adaptation.sasrec import FIRST_SCALE, SASRec, Sequences, Steps
from semid.errors import ConfigError
from semid.runtime.devices import pick_device
from semid.runtime.progress import bar

__all__ = ["train_rat"]

WIDTH = 128  # d
ALIGNED = 0.01  # weight of the contrastive loss
TAU = 2.0  # its temperature
MOST_ALIGNED = 2048  # positions of a batch that it compares with each other
JUDGED = 6  # times that the recommender is judged
ROWS = 1 << 13  # through the layers at a time

Floats = npt.NDArray[np.float32]


def train_rat(vectors: Floats, behavior: Behavior, config: AdaptConfig) -> Learned:
    """Train linear layers and a SASRec on frozen text vectors, and return the layers of the best step.

    Parameters
    ----------
    vectors : float32 [N, D]
        Frozen vectors of the items.
    behavior : Behavior
        What is learned from, and the next items that choose the step; without those the last step is kept.
    config : AdaptConfig
        Steps, users in a batch, learning rate, dims, seed and device.

    Returns
    -------
    Learned
        Scores are the recommender's own Recall@10 of the judges' next items, all items ranked; `others` has its figures
        at the next items of the report, and those of the SASRec with a vector for each item's number. Equal inputs and
        settings give equal layers on one machine.

    Raises
    ------
    ConfigError
        No user met two items, or the loss is not finite.
    """
    sequences = Sequences(behavior.learned, len(vectors))
    if not len(sequences.users):
        raise ConfigError("rat=True: no user has two training interactions with items of the catalog. Leave rat out.")
    device, dim = pick_device(config.device), config.dim or WIDTH
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        by_number = nn.Embedding(len(vectors), dim)
        nn.init.normal_(by_number.weight, std=FIRST_SCALE)  # from 1, as torch has it, it stays at chance for epochs
        numbered = _Stage(by_number, sequences, behavior, config, device)
        numbered.train("ID table")
        frozen = torch.from_numpy(vectors).to(device)
        table = _Adapted(frozen, dim)
        stage = _Stage(table, sequences, behavior, config, device, numbered.table_of_all())
        learned = stage.train("adapter")
    others = {}
    if len(behavior.reported):
        named = {"SASRec, ID table": numbered, "SASRec, adapted": stage}
        others = {name: trained.figures(behavior.reported) for name, trained in named.items()}
    return Learned(table.layers(), learned.step, learned.scores, others)


class _Adapted(nn.Module):
    """A table of item vectors: two linear layers on frozen ones."""

    def __init__(self, frozen: torch.Tensor, dim: int) -> None:
        super().__init__()
        width = frozen.shape[1]
        self.frozen = frozen
        self.first, self.second = nn.Linear(width, max(dim, width // 2)), nn.Linear(max(dim, width // 2), dim)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.frozen[rows]))

    def layers(self) -> list[Dense]:
        """Return the layers as they are now."""

        def plain(tensor: torch.Tensor) -> Floats:
            return tensor.detach().cpu().numpy().copy()

        return [Dense(plain(layer.weight), plain(layer.bias)) for layer in (self.first, self.second)]


class _Stage:
    """A SASRec and the table of item vectors that it learns with."""

    def __init__(
        self,
        table: nn.Module,
        sequences: Sequences,
        behavior: Behavior,
        config: AdaptConfig,
        device: str,
        collaborative: torch.Tensor | None = None,
    ) -> None:
        self.table, self.sequences, self.judges = table.to(device), sequences, behavior.judges
        self.config, self.device, self.collaborative = config, device, collaborative
        self.model = SASRec(config.dim or WIDTH).to(device)
        self.both = nn.ModuleList([self.table, self.model])

    def train(self, name: str) -> Learned:
        """Learn, and go back to the step with the best score; return that step and the scores."""
        steps, size, rate = self.config.training() if self.config.train == "adapter" else RAT
        optimizer = torch.optim.Adam(self.both.parameters(), lr=rate)
        due = {max(1, steps * part // JUDGED) for part in range(1, JUDGED + 1)}
        batches = self.sequences.batches(size, self.config.seed)
        best, kept, scores, losses = -1.0, 0, list[tuple[int, float, float]](), list[float]()
        weights = copy.deepcopy(self.both.state_dict())
        with bar(f"rat: {name}", steps, unit="step") as advance:
            for step, batch in zip(range(1, steps + 1), batches, strict=False):
                self.both.train()
                loss = self.loss(batch)
                if not torch.isfinite(loss):
                    raise ConfigError(f"the loss is {loss.item()} at step {step}. Lower rate.")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                advance(1)
                if step in due:
                    score = self.figures(self.judges).recall["all"] or 0.0 if len(self.judges) else float("nan")
                    scores.append((step, float(np.mean(losses)), score))
                    losses.clear()
                    if not score <= best:  # NaN, where nothing judges, takes the newest
                        best, kept, weights = score, step, copy.deepcopy(self.both.state_dict())
        self.both.load_state_dict(weights)
        return Learned([], kept, scores)

    def loss(self, batch: Steps) -> torch.Tensor:
        """Return the loss on a batch."""
        filled = self.tensor(batch.filled)
        items, wanted, others = (self.table(self.tensor(rows)) for rows in (batch.items, batch.wanted, batch.others))
        states = self.model(items * filled[:, :, None])
        right, wrong = ((states * vectors).sum(dim=2)[filled] for vectors in (wanted, others))
        losses = nn.functional.softplus(-right) + nn.functional.softplus(wrong)  # both cross-entropies
        if self.collaborative is None:
            return losses.mean()
        met = self.tensor(batch.wanted)[filled][:MOST_ALIGNED]
        tau = torch.tensor(TAU, device=self.device)
        aligned = soft_target_loss(wanted[filled][:MOST_ALIGNED], self.collaborative[met], tau)
        return losses.mean() + ALIGNED * aligned

    def tensor(self, array: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    @torch.no_grad()
    def table_of_all(self) -> torch.Tensor:
        """Return the vectors of all items, float [N, d]."""
        self.both.eval()
        blocks = torch.arange(self.sequences.n_items, device=self.device).split(ROWS)
        return torch.cat([self.table(rows) for rows in blocks])

    @torch.no_grad()
    def figures(self, next_items: NextItems) -> Scores:
        """Return what the recommender reaches; every item that a user has not met is ranked."""
        self.both.eval()
        before = Sequences(next_items.histories, self.sequences.n_items)
        states = []
        for users in np.array_split(next_items.users, max(1, len(next_items) // 256)):
            items, filled = before.padded(users)
            found = self.model(self.table(self.tensor(items)) * self.tensor(filled)[:, :, None])
            last = self.tensor(filled.sum(axis=1) - 1)
            states.append(found[torch.arange(len(users), device=self.device), last])
        known = torch.cat(states).cpu().numpy()
        return next_items.scores(self.table_of_all().cpu().numpy(), self.device, known)
