"""The item head: scores, loss and ranking against plain formulas; and a tiny model that learns with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.entities import (
    CodeRows,
    EntityNames,
    ItemHead,
    SoftHardPrompts,
    TokenRows,
    collate,
    find_entities,
    last_states,
    mutual_regularization,
    scored_loss,
)
from semid.tokenizer_exports.models import extend
from tests.helpers.tiny_models import ids_of, new_model, new_tokenizer

N, H = 12, 6


def table(n_rows: int = 40, width: int = H, seed: int = 0) -> nn.Embedding:
    torch.manual_seed(seed)
    return nn.Embedding(n_rows, width)


def padded(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows), default=0)
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), width)


sets = st.lists(st.integers(0, N - 1), max_size=N - 1, unique=True)


@given(st.lists(st.tuples(sets, sets), min_size=1, max_size=4), st.booleans())
@settings(deadline=None)
def test_the_loss_is_the_multinomial_likelihood_over_items_that_compete(people, biased):
    head = ItemHead(TokenRows(table(), range(20, 20 + N)), bias=torch.arange(N) / N if biased else None, scale=0.7)
    states = torch.randn(len(people), H, generator=torch.Generator().manual_seed(1))
    wanted, known = [list(a) for a, _ in people], [list(b) for _, b in people]
    logits = states @ head.rows.embedding.weight[20 : 20 + N].T * 0.7 + (torch.arange(N) / N if biased else 0)
    sums = []
    for row, targets, seen in zip(logits.tolist(), wanted, known, strict=True):
        total = sum(math.exp(row[item]) for item in range(N) if item in targets or item not in seen)
        sums.append(-sum(row[item] - math.log(total) for item in targets))
    by_user = [value / len(one) for value, one in zip(sums, wanted, strict=True) if one]
    expected = {
        "user": sum(by_user) / max(len(by_user), 1),
        "interaction": sum(sums) / max(sum(map(len, wanted)), 1),
    }
    for each, value in expected.items():
        loss = head.loss(states, padded(wanted), seen=padded(known), each=each)
        assert torch.isfinite(loss) and loss.item() == pytest.approx(value, abs=1e-4)
        loss.backward()
    assert torch.isfinite(head.rows.embedding.weight.grad).all()
    assert not head.rows.embedding.weight.grad[:20].any()  # words do not compete


@given(st.lists(sets, min_size=1, max_size=4), st.integers(1, N))
@settings(deadline=None)
def test_ranking_is_a_sort_without_seen_items(known, k):
    head = ItemHead(TokenRows(table(), range(3, 3 + N)))
    states = torch.randn(len(known), H, generator=torch.Generator().manual_seed(2))
    ranked = head.rank(states, k, seen=padded([list(one) for one in known]))
    logits = head(states).tolist()
    for row, seen, found, scores in zip(logits, known, ranked.items.tolist(), ranked.scores.tolist(), strict=True):
        order = sorted(set(range(N)) - set(seen), key=lambda item: -row[item])[:k]
        assert found == order + [-1] * (k - len(order))
        assert scores[: len(order)] == [row[item] for item in order]


@pytest.mark.parametrize("projected", [False, True])
def test_code_rows_score_as_the_composed_rows_do(projected):
    embedding = table()
    token_ids = torch.randint(0, 40, (N, 3), generator=torch.Generator().manual_seed(0)).numpy()
    rows = CodeRows(embedding, token_ids, projected=projected)
    states = torch.randn(4, H)
    plain = torch.stack([embedding.weight[ids].sum(0) for ids in torch.from_numpy(token_ids)])
    assert torch.allclose(rows.scores(states), states @ plain.T, atol=1e-5)  # the projection starts as the identity
    if projected:
        nn.init.normal_(rows.projection.weight)
        assert not torch.allclose(rows.rows(), plain)
    assert torch.allclose(rows.scores(states), states @ rows.rows().T, atol=1e-4)
    rows.scores(states).square().sum().backward()
    used = torch.zeros(40, dtype=torch.bool)
    used[torch.from_numpy(token_ids).flatten()] = True
    assert torch.equal(embedding.weight.grad.abs().sum(1) > 0, used)


def test_code_rows_of_an_artifact_are_the_rows_of_its_codes():
    tokenizer, model, ids = new_tokenizer(), new_model("qwen3 tied"), ids_of()
    extended = extend(tokenizer, model, ids)
    rows = CodeRows.of(model.get_input_embeddings(), ids, extended.base).rows()
    token_ids = tokenizer(ids.tokens("red-shoe"), add_special_tokens=False)["input_ids"]
    expected = model.get_input_embeddings().weight[token_ids].sum(0)
    assert torch.allclose(rows[list(ids.ledger.item_ids).index("red-shoe")], expected)


def test_the_last_state_is_that_of_the_last_token_before_the_padding():
    states = torch.arange(12.0).reshape(2, 3, 2)
    assert last_states(states, torch.tensor([[1, 1, 0], [1, 1, 1]])).tolist() == [[2.0, 3.0], [10.0, 11.0]]
    assert last_states(states, torch.tensor([[0, 1, 1], [1, 1, 1]])).tolist() == [[4.0, 5.0], [10.0, 11.0]]
    with pytest.raises(InputError, match="a prompt has no token"):
        last_states(states, torch.tensor([[1, 1, 0], [0, 0, 0]]))


def test_nothing_left_to_rank_and_catalogs_of_one():
    states = torch.randn(2, H, generator=torch.Generator().manual_seed(3))
    head = ItemHead(TokenRows(table(), range(N)))
    everything = torch.arange(N).expand(2, N)
    assert (head.rank(states, N, seen=everything).items == -1).all()
    assert head.loss(states, padded([[], []]), seen=everything).item() == 0
    one = ItemHead(TokenRows(table(), range(5, 6)))
    assert one.rank(states, 1).items.tolist() == [[0], [0]]
    assert one.loss(states, padded([[0], []])).item() == 0
    assert head.rank(states[:0], 3).items.shape == (0, 3)


@pytest.mark.parametrize(
    "numbers, said",
    [
        ([[N], [0]], rf"{N} should be in 0\.\.{N - 1}"),
        ([[0], [-2]], "-2 should be"),
        ([[0]], r"shape=\(1, 1\)"),
        ([[0], [1], [2]], r"shape=\(3, 1\)"),
        ([[0.0], [1.0]], "float32"),
        ([0, 1], r"shape=\(2,\)"),
    ],
)
def test_numbers_that_are_no_items_are_refused(numbers, said):
    head, states, numbers = ItemHead(TokenRows(table(), range(N))), torch.zeros(2, H), torch.tensor(numbers)
    with pytest.raises(InputError, match=said):
        head.loss(states, numbers)
    if numbers.ndim == 2:
        with pytest.raises(InputError, match=said):
            head.rank(states, 3, seen=numbers)


def test_a_model_that_diverged_ranks_nothing():
    head, states = ItemHead(TokenRows(table(), range(N))), torch.zeros(2, H)
    states[1, 0] = torch.nan
    with pytest.raises(InputError, match="contain NaN"):
        head.rank(states, 3, seen=padded([[1], [2]]))


def test_only_the_score_space_competes():
    weight, states = table(10).weight, torch.randn(3, 4, H)
    labels = torch.tensor([[-100, -100, 7, 9], [-100, 1, 2, -100], [-100, -100, -100, -100]])
    spaces = torch.tensor([[6, 10], [0, 6], [6, 10]])
    expected = []
    for row, place, start, stop in ((0, 2, 6, 10), (0, 3, 6, 10), (1, 1, 0, 6), (1, 2, 0, 6)):
        logits = weight[start:stop] @ states[row, place - 1]
        expected.append(-logits.log_softmax(0)[labels[row, place] - start].item())
    found = scored_loss(states, weight, labels, spaces)
    assert found.item() == pytest.approx(sum(expected) / 4, abs=1e-5)
    assert scored_loss(states, weight, torch.full_like(labels, -100), spaces).item() == 0
    with pytest.raises(ConfigError, match=r"outside of their score space 0\.\.5"):
        scored_loss(states, weight, labels, spaces.flip(0) * 0 + torch.tensor([0, 6]))


def test_mutual_regularization_counts_each_entity_once_and_moves_one_side():
    rows, anchor = table(seed=1).weight, table(seed=2).weight
    numbers = torch.tensor([[3, 3, 5], [-1, 3, -100]])
    squares = (rows - anchor).square().sum(1)
    once = mutual_regularization(rows, anchor, numbers)
    assert once.item() == pytest.approx(((squares[3] + squares[5]) / 2).item())
    every = mutual_regularization(rows, anchor, numbers, each="position")
    assert every.item() == pytest.approx((3 * squares[3] + squares[5]).item())
    once.backward()
    assert rows.grad[[3, 5]].any(1).all() and anchor.grad is None
    assert mutual_regularization(rows, anchor, torch.tensor([-1])).item() == 0


def train(parameters, loss_of, steps: int) -> list[float]:
    optimizer, losses = torch.optim.Adam(parameters, 1e-2), []
    for step in range(steps):
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("made_of", ["tokens", "codes"])
def test_a_tiny_model_learns_which_items_go_together(made_of):
    """Two kinds of people, each with twelve items of their own colors: what is hidden comes first, by either rows."""
    tokenizer, model, ids = new_tokenizer(), new_model("qwen3 tied"), ids_of()
    names = EntityNames(8, len(ids))
    extend(tokenizer, model, names, init="default")
    base = extend(tokenizer, model, ids).base
    embedding, entities = model.get_input_embeddings(), find_entities(tokenizer, names)
    rows = TokenRows(embedding, entities.items) if made_of == "tokens" else CodeRows.of(embedding, ids, base)
    head, prompts = ItemHead(rows), SoftHardPrompts(tokenizer, entities)
    histories = [list(range(21 * (user % 2), 21 * (user % 2) + 12)) for user in range(8)]

    def states_of(batch):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return last_states(model.base_model(**inputs).last_hidden_state, batch["attention_mask"])

    def loss_of(step):
        documents = [prompts.recommendation(user, items, epoch=step) for user, items in enumerate(histories)]
        batch = collate(documents, tokenizer.pad_token_id)
        return head.loss(states_of(batch), batch["targets"], seen=batch["seen"])

    losses = train(model.parameters(), loss_of, 50)
    assert losses[-1] < losses[0] - 1
    batch = collate([prompts.question(user, items[:5]) for user, items in enumerate(histories)], tokenizer.pad_token_id)
    best = head.rank(states_of(batch), 7, seen=batch["seen"]).items
    right = torch.stack([torch.isin(best[user], torch.tensor(items[5:])) for user, items in enumerate(histories)])
    assert right.float().mean() > 0.8


def test_documents_of_words_and_items_train_together_and_twins_come_closer():
    """Interactions teach one model, texts its twin, in turns; the tables of the same entities stay close."""
    tokenizer, names = new_tokenizer(), EntityNames(4, 10)
    twins = [new_model("qwen3 tied") for _ in range(2)]
    for seed, model in enumerate(twins):
        tokenizer = new_tokenizer()
        extend(tokenizer, model, names, init="default", seed=seed)
    entities = find_entities(tokenizer, names)
    prompts = SoftHardPrompts(tokenizer, entities)
    sides = [
        [prompts.interactions(user, [user, user + 3, user + 5]) for user in range(4)],
        [prompts.content(item, f"shoe {item}") for item in range(10)],
    ]
    batches = [collate(documents, tokenizer.pad_token_id) for documents in sides]
    tables = [model.get_input_embeddings().weight for model in twins]
    mine = slice(entities.users.start, entities.items.stop)
    before = (tables[0] - tables[1])[mine].square().sum(1).mean().item()
    for side, (model, batch) in enumerate(zip(twins, batches, strict=True)):
        soft = torch.where(batch["input_ids"] >= entities.base, batch["input_ids"], -1)

        def loss_of(_, model=model, batch=batch, side=side, soft=soft):
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            states = model.base_model(**inputs).last_hidden_state
            loss = scored_loss(states, tables[side], batch["labels"], batch["score_space"])
            return loss + mutual_regularization(tables[side], tables[1 - side], soft)

        losses = train(model.parameters(), loss_of, 15)
        assert losses[-1] < losses[0]
    assert (tables[0] - tables[1])[mine].square().sum(1).mean().item() < before


def test_a_trainer_takes_documents_and_collator(tmp_path):
    from transformers import Trainer, TrainingArguments

    tokenizer, model, names = new_tokenizer(), new_model("qwen3 tied"), EntityNames(4, 10)
    extend(tokenizer, model, names, init="default")
    prompts = SoftHardPrompts(tokenizer, find_entities(tokenizer, names))
    documents = [prompts.interactions(user, [user, user + 3]) for user in range(4)]
    documents += [prompts.content(item, "a warm shoe") for item in range(4)]

    class Scored(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **_):
            states = model.base_model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state
            weight = model.get_output_embeddings().weight
            return scored_loss(states, weight, inputs["labels"], inputs["score_space"])

    arguments = TrainingArguments(
        str(tmp_path), max_steps=4, learning_rate=1e-2, remove_unused_columns=False, report_to="none", use_cpu=True,
        logging_steps=1, save_strategy="no", disable_tqdm=True, per_device_train_batch_size=8,
    )  # fmt: skip
    trainer = Scored(model, arguments, train_dataset=documents, data_collator=lambda rows: collate(rows, 0))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_what_does_not_fit_is_refused():
    embedding = table()
    with pytest.raises(ConfigError, match="should be rows of the embedding, which has 40"):
        TokenRows(embedding, range(30, 41))
    with pytest.raises(ConfigError, match="should be integers"):
        CodeRows(embedding, [1, 2])
    with pytest.raises(ConfigError, match="token_ids are 1 to 40; the embedding has 40 rows"):
        CodeRows(embedding, [[1, 40]])
    rows = TokenRows(embedding, range(N))
    with pytest.raises(ConfigError, match=r"bias: shape=\(3,\) should be \(12,\)"):
        ItemHead(rows, bias=torch.zeros(3))
    for bias in (torch.tensor([0.0] * 11 + [torch.nan]), [-np.inf] * 12):
        with pytest.raises(ConfigError, match=r"use log\(count \+ 0.5\)"):
            ItemHead(rows, bias=bias)
    for scale in (0.0, torch.nan, torch.inf):
        with pytest.raises(ConfigError, match="should be a number above 0"):
            ItemHead(rows, scale=scale)
    for k in (13, 0, 3.0, True):
        with pytest.raises(ConfigError, match=f"k={k} should be 1 to 12"):
            ItemHead(rows).rank(torch.zeros(1, H), k)
    with pytest.raises(ConfigError, match="should be rows of the embedding"):
        TokenRows(embedding, [1, 2, 3])
    with pytest.raises(ConfigError, match="should have the same shape"):
        mutual_regularization(rows.rows(), rows.rows()[:, :1], torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ConfigError, match="each='all'"):
        ItemHead(rows).loss(torch.zeros(1, H), padded([[1]]), each="all")
    with pytest.raises(ConfigError, match="each='all'"):
        mutual_regularization(rows.rows(), rows.rows(), torch.zeros(1, dtype=torch.int64), each="all")
