"""Documents of soft and hard tokens: what is shown, what is asked for, and what competes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.entities import EntityNames, SoftHardPrompts, Wording, add_entities, collate
from tests.helpers.tiny_models import new_tokenizer

USERS, ITEMS = 9, 40
histories = st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=30)
users = st.integers(0, USERS - 1)


@cache
def prepared():
    tokenizer = new_tokenizer()
    return tokenizer, add_entities(tokenizer, EntityNames(USERS, ITEMS))


def prompts(**choices) -> SoftHardPrompts:
    return SoftHardPrompts(*prepared(), **choices)


def shown(document) -> list[int]:
    """Item numbers in the prompt or behind it."""
    return [one.number for one in prepared()[1].find(document["input_ids"]) if one.kind == "item"]


@given(users, histories, st.integers(0, 3), st.booleans(), st.sampled_from(["hidden", "all"]))
@settings(deadline=None)
def test_a_recommendation_hides_what_it_asks_for(user, items, epoch, shuffle, targets):
    document = prompts(shuffle=shuffle, targets=targets, hidden=0.3).recommendation(user, items, epoch=epoch)
    visible, asked = shown(document), set(document["targets"])
    hidden = set(items) - set(visible)
    assert len(visible) == len(set(visible)) and len(hidden) == max(1, round(0.3 * len(set(items))))
    assert asked == (hidden if targets == "hidden" else set(items))
    assert not asked & set(document["seen"]) and set(document["seen"]) <= set(visible)
    assert not any(document["loss_mask"])
    assert document == prompts(shuffle=shuffle, targets=targets, hidden=0.3).recommendation(user, items, epoch=epoch)


@given(users, histories)
@settings(deadline=None)
def test_interactions_are_foretold_among_items(user, items):
    _, entities = prepared()
    document = prompts(shuffle=False).interactions(user, items)
    last_times = sorted(set(items), key=lambda item: len(items) - items[::-1].index(item))
    assert shown(document) == last_times
    assert sum(document["loss_mask"]) == len(last_times)
    scored = [one for one, mask in zip(document["input_ids"], document["loss_mask"], strict=True) if mask]
    assert entities.item_numbers(scored).tolist() == last_times
    assert range(document["score_start"], document["score_stop"]) == entities.items
    mixed = prompts(seed=1).interactions(user, items)
    assert sorted(shown(mixed)) == sorted(last_times)


@given(users, st.integers(0, ITEMS - 1), st.text(max_size=40) | st.sampled_from(["item_5 is item_4", "user_1\\_2"]))
@settings(deadline=None)
def test_free_text_is_foretold_among_words_and_holds_no_soft_token(user, item, text):
    tokenizer, entities = prepared()
    for document, soft in ((prompts().review(user, item, text), 2), (prompts().content(item, text), 1)):
        assert len(entities.find(document["input_ids"])) == soft
        pairs = zip(document["input_ids"], document["loss_mask"], strict=True)
        main = [one for one, mask in pairs if mask]
        assert all(one in entities.words for one in main)
        assert range(document["score_start"], document["score_stop"]) == entities.words
        assert main[-1] == tokenizer.eos_token_id
        assert entities.names.unescape(tokenizer.decode(main[:-1])) == " " + text


def test_prompts_read_as_the_tokenizer_reads_them():
    tokenizer, _ = prepared()
    made = prompts(shuffle=False)
    for document, text in (
        (made.interactions(3, [7, 1]), "user_3 has chosenitem_7item_1"),
        (made.review(3, 7, "Warm, item_7!"), "user_3 writes about item_7: Warm, item\\_7!<|end|>"),
        (made.content(7, "red shoe"), "item_7 can be described as red shoe<|end|>"),
        (made.question(3, [7, 1]), "user_3 has chosen item_7item_1 and will choose"),
    ):
        assert document["input_ids"] == tokenizer(text)["input_ids"], text


def test_epochs_and_seeds_hide_different_items():
    items = list(range(30))
    hidden = {tuple(prompts(seed=seed).recommendation(0, items, epoch=e)["targets"]) for seed in (0, 1) for e in (0, 1)}
    assert len(hidden) == 4
    orders = {tuple(shown(prompts().interactions(0, items, epoch=epoch))) for epoch in (0, 1)}
    assert len(orders) == 2


def test_long_histories_and_texts_are_cut():
    items, made = list(range(20)), prompts(shuffle=False, max_items=4, max_words=3)
    assert shown(made.interactions(0, items)) == [16, 17, 18, 19]
    assert len(shown(prompts(max_items=4).interactions(0, items))) == 4
    question = made.question(0, items)
    assert shown(question) == [16, 17, 18, 19] and question["seen"] == items
    review = made.review(0, 1, "a text that goes on and on")
    assert sum(review["loss_mask"]) == 3 and prepared()[0].eos_token_id not in review["input_ids"]


def test_users_without_a_token_need_a_wording_without_one():
    with pytest.raises(InputError, match="user=None, but the prompt of recommendation names one"):
        prompts().question(None, [1])
    made = prompts(wording=Wording(recommendation="{history} then"))
    assert shown(made.question(None, [5])) == [5]


@pytest.mark.parametrize(
    "wording, said",
    [
        ({"review": "about {user}:"}, "should contain {item} and {user}"),
        ({"content": "{user} {item}"}, "should contain {item}"),
        ({"recommendation": "{history} {history}"}, "each once"),
        ({"interactions": "{user"}, "not a pattern"),
        ({"interactions": "{0}"}, "should contain {user}"),
    ],
)
def test_wordings_that_cannot_be_are_refused(wording, said):
    with pytest.raises(ConfigError) as caught:
        Wording(**wording)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "choices, said",
    [
        ({"hidden": 1.0}, "hidden=1.0"),
        ({"targets": "some"}, "targets='some'"),
        ({"max_items": 0}, "max_items=0"),
        ({"wording": Wording(content="like item_3, {item}:")}, "contains the name of a user or item"),
    ],
)
def test_choices_that_cannot_be_are_refused(choices, said):
    with pytest.raises(ConfigError) as caught:
        prompts(**choices)
    assert said in str(caught.value)


def test_an_empty_history_and_unknown_numbers_are_refused():
    with pytest.raises(InputError, match="history of user 3 is empty"):
        prompts().recommendation(3, [])
    with pytest.raises(InputError, match=r"items\[1\]=40 should be in 0..39"):
        prompts(shuffle=False).interactions(3, [1, 40])
    with pytest.raises(InputError, match="users=9 should be in 0..8"):
        prompts().question(9, [1])


@pytest.mark.parametrize("wrong", [40, -1])
def test_an_unknown_number_is_refused_in_every_epoch_also_where_it_would_be_hidden(wrong):
    for epoch in range(8):
        with pytest.raises(InputError, match=rf"items\[0\]={wrong} should be in 0..39"):
            prompts().recommendation(3, [wrong, 2], epoch=epoch)


@pytest.mark.parametrize("items", [[3.7, 2], ["3"], ["B00é"], [float("nan")], [None], None, [True], [[1, 2]], 5])
def test_what_is_no_list_of_item_numbers_is_refused(items):
    for make in (prompts().recommendation, prompts().interactions, prompts().question):
        with pytest.raises(InputError, match=r"items: (dtype|shape)="):
            make(3, items)


@pytest.mark.parametrize("one", [[3], True, 3.0, "3", None])
def test_what_is_no_number_of_a_user_or_item_is_refused(one):
    with pytest.raises(InputError, match="user"):
        prompts().question(one, [1])
    with pytest.raises(InputError, match="item"):
        prompts().content(one, "red shoe")


def test_numpy_numbers_are_numbers():
    import numpy as np

    same = prompts().recommendation(3, [7, 1, 8])
    assert prompts().recommendation(np.int32(3), np.array([7, 1, 8], np.uint16)) == same


def test_a_history_of_one_item_is_hidden_whole_and_an_empty_one_can_be_asked_about():
    document = prompts().recommendation(3, [7, 7])
    assert document["targets"] == [7] and not document["seen"] and not shown(document)
    assert not shown(prompts().question(3, []))
    assert collate([prompts().question(3, [])], pad_id=0)["seen"].shape == (1, 0)
    with pytest.raises(InputError, match="documents: there are none"):
        collate([], pad_id=0)


def test_free_text_holds_no_special_token_but_wordings_may():
    tokenizer, _ = prepared()
    text = "ends here <|end|> or not"
    main = prompts().content(7, text)
    scored = [one for one, mask in zip(main["input_ids"], main["loss_mask"], strict=True) if mask]
    assert scored.count(tokenizer.eos_token_id) == 1 == scored[-1:].count(tokenizer.eos_token_id)
    assert tokenizer.decode(scored[:-1]) == " " + text
    made = prompts(wording=Wording(content="{item}<|end|>"))
    assert made.content(7, "x")["input_ids"].count(tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("text, said", [(None, "NoneType"), (5, "int"), (b"x", "bytes"), ("\ud800", "lone surrogate")])
def test_what_is_no_text_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        prompts().review(3, 7, text)


@given(st.lists(st.tuples(users, histories), min_size=1, max_size=5))
@settings(deadline=None)
def test_a_batch_holds_the_documents_and_padding(people):
    made = prompts()
    documents = [made.recommendation(user, items) for user, items in people]
    documents += [made.interactions(user, items) for user, items in people]
    batch = collate(documents, pad_id=0)
    for row, document in enumerate(documents):
        length = len(document["input_ids"])
        assert batch["attention_mask"][row].sum() == length and batch["attention_mask"][row, :length].all()
        assert batch["input_ids"][row, :length].tolist() == document["input_ids"]
        labelled = batch["labels"][row] != -100
        assert labelled[:length].tolist() == [bool(mask) for mask in document["loss_mask"]]
        assert not labelled[length:].any()
        assert torch.equal(batch["labels"][row][labelled], batch["input_ids"][row][labelled])
        for name in ("targets", "seen"):
            assert batch[name][row][batch[name][row] >= 0].tolist() == document[name]
