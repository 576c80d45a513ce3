"""The tokens of IDs inside real tokenizers of every kind in use: read whole in any text, and text is read as before.

The tokenizers come out of packages (`real_models`); each test runs for each family that is there.
"""

from __future__ import annotations

import doctest
import functools
import json
import re
import subprocess
import sys
import time
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from semid.tokenizer_exports.models.add_tokens import add_tokens
from semid.tokens import Vocabulary, find_base
from tests.helpers.real_models import conversions, smollm2
from tests.helpers.real_models.tokenizers import FAMILIES

VOCABULARY = Vocabulary([256] * 4)
# 256 IDs in which every code of every level occurs.
CODES = (np.arange(256)[:, None] * [1, 3, 5, 7] + [0, 11, 22, 33]) % 256

# Metaspace puts a space before the first stretch of text alone: one after an item is not read as if it came first.
FIRST_STRETCH_DIFFERS = {"mistral"}
# Each stretch gets a space before it, words are joined by spaces, or what is unknown is lost: text for display only.
TEXT_CHANGES = {"mistral-prepend", "bert", "unigram"}
# As large as qwen and of its kind.
SLOW = {"cl100k", "tekken", "deepseek"}

AROUND_AN_ID = {
    "alone": "{}",
    "in a sentence": "People who liked {} also bought {} last week.",
    "glued to words": "pre{}post",
    "glued to digits": "12{}34{}",
    "side by side": "{}{}{}",
    "in a list": "{}, {};{}\n- {}\n* {}",
    "after line breaks": "\n{}\r\n\n{}\n",
    "between blanks": "   {}   {}\t{} ",
    "in brackets and quotes": "({}) [{}] \"{}\" '{}' <{}>",
    "in JSON": '{{"id": "{}", "also": ["{}","{}"]}}',
    "next to Chinese and Arabic": "我喜欢{}和{}。مرحبا{}بك",
    "next to emoji": "🎉{}👩‍👩‍👧{}🇩🇪",
    "in markers": "<|sid_begin|>{}<|sid_end|>",
    "beside pieces of tokens": "<s_{}_1> <s_a_{}>",
}
CORPUS = [
    "The quick brown fox jumps over 13 lazy dogs; it's 3.14159 o'clock, isn't it?",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Straßenbahn-Haltestelle: 1.234,56 €",
    "天地玄黃,宇宙洪荒。我爱自然语言处理!日本語のテキスト、한국어 문장.",
    "الكتاب على الطاولة، والقط تحتها. שלום עולם",
    "🎉 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ™ ½ ﬁ Å e\u0301 \u200b\ufeff\x00",
    "def f(x: int) -> str:\n\treturn f\"<{x!r}>\" if x else '</s>'  # <b>no</b>\n\n\n",
    "0 00 007 1234567890 1e-9 0xDEADBEEF 192.168.0.1 2024-02-29T23:59:60Z",
    " leading, trailing ", "      \t\t \n\n\n   \r\n  x", "", " ", "\n", "a" * 200, "=-" * 50,
    "<s_a_", "<s_a_256>", "<S_A_1>", "s_a_1", "<s_a_1", "s_a_1>", "<s_a_01>", "<s_a_-1>", "<s_a_1 >", "< s_a_1>",
    "<s_e_0>", "<s__1>", "<s_a_>", "<s_a__1>", "<s a 1>", "<S_a_1>", "＜s_a_1＞", "<s_a_１>", "<ѕ_a_1>", "<s-a-1>",
    "<|sid_begin>", "<|SID_END|>", "<|sid|>", "sid_begin", "the s_a_12 and <s_b_ 7> of <<s_c_999>>",
]  # fmt: skip


class Family(NamedTuple):
    name: str
    plain: PreTrainedTokenizerFast
    extended: PreTrainedTokenizerFast
    base: int

    def __repr__(self) -> str:
        return f"Family({self.name!r})"

    def read(self, text: str) -> list[int]:
        """Token ids of a text, the items' among them."""
        return self.extended(text, add_special_tokens=False)["input_ids"]

    def items(self, token_ids: list[int]) -> list[list[int]]:
        """Codes of the items in the token ids: runs of L tokens and no others between pieces of text."""
        last = self.base + VOCABULARY.offsets[-1]
        runs = [list(run) for inside, run in groupby(token_ids, lambda i: self.base <= i < last) if inside]
        assert all(len(run) % VOCABULARY.n_levels == 0 for run in runs)
        rows = np.reshape([i for run in runs for i in run], (-1, VOCABULARY.n_levels)).astype(np.int64)
        return VOCABULARY.codes_of_token_ids(rows, self.base).tolist()


@functools.cache
def plain(name: str) -> PreTrainedTokenizerFast:
    """One to look at; tests that add tokens load their own."""
    return FAMILIES[name]()


marked = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FAMILIES]


@pytest.fixture(scope="module", params=marked)
def family(request):
    extended = FAMILIES[request.param]()
    return Family(request.param, plain(request.param), extended, add_tokens(extended, VOCABULARY))


def texts_with(around: str) -> list[tuple[str, list[list[int]]]]:
    """Texts in which all of `CODES` stand in the given surroundings, each with the codes in it."""
    count = around.format(*["{}"] * 9).count("{}")
    rows = [CODES[np.arange(first, first + count) % len(CODES)] for first in range(0, len(CODES), count)]
    return [(around.format(*VOCABULARY.texts(row)), row.tolist()) for row in rows]


# ---- items


def test_the_block_is_contiguous_behind_everything_else(family):
    ids = family.extended.convert_tokens_to_ids(VOCABULARY.tokens)
    assert ids == list(range(family.base, family.base + len(VOCABULARY)))
    assert family.base == max(family.plain.get_vocab().values()) + 1
    assert find_base(VOCABULARY, family.extended) == family.base


@pytest.mark.parametrize("around", AROUND_AN_ID.values(), ids=AROUND_AN_ID)
def test_every_id_is_read_as_its_tokens_and_written_back(family, around):
    texts, codes = zip(*texts_with(around), strict=True)
    read = family.extended(list(texts), add_special_tokens=False)["input_ids"]
    assert [family.items(token_ids) for token_ids in read] == list(codes)
    written = family.extended.batch_decode(read, skip_special_tokens=True)
    found = [[list(f.codes) for f in VOCABULARY.find(text) if f.codes is not None] for text in written]
    assert found == list(codes)
    if family.name not in TEXT_CHANGES:
        lost = " " if family.name in FIRST_STRETCH_DIFFERS else ""  # a text's first blank, items or not
        assert written == [text.removeprefix(lost) for text in texts]


words = st.text(max_size=12) | st.sampled_from([" ", "\n", ", ", "<", "<s_a_", "<s_", "_1>", "1>", "|sid_end|>", "é"])
pieces = words | st.integers(0, len(CODES) - 1)


@settings(max_examples=60)
@given(st.lists(pieces, max_size=10))
def test_text_and_items_are_read_as_if_each_stood_alone(family, pieces):
    text = "".join(piece if isinstance(piece, str) else VOCABULARY.text(CODES[piece]) for piece in pieces)
    place = {token: family.base + i for i, token in enumerate(VOCABULARY.tokens)}
    stretches = re.split(f"({'|'.join(map(re.escape, VOCABULARY.tokens))})", text)
    read = family.read(text)
    assert [i for i in read if i >= family.base] == [place[stretch] for stretch in stretches if stretch in place]
    if family.name in FIRST_STRETCH_DIFFERS:
        return
    alone = [
        [place[s]] if s in place else family.plain(s, add_special_tokens=False)["input_ids"] for s in stretches if s
    ]
    assert read == [i for token_ids in alone for i in token_ids]


# ---- ordinary text


def test_ordinary_text_is_read_as_before(family):
    assert family.extended(CORPUS)["input_ids"] == family.plain(CORPUS)["input_ids"]


@settings(max_examples=60)
@given(words.map(lambda word: word.replace(">", "")) | st.lists(words, max_size=8).map(" ".join))
def test_random_text_is_read_as_before(family, text):
    assert family.extended(text)["input_ids"] == family.plain(text)["input_ids"]


# ---- saving, adding again


def test_a_saved_tokenizer_is_the_same_when_loaded(family, tmp_path):
    started = time.process_time()
    family.extended.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert time.process_time() - started < 8  # under 2 on an idle machine
    texts = CORPUS + [text for around in AROUND_AN_ID.values() for text, _ in texts_with(around)[:4]]
    assert loaded(texts)["input_ids"] == family.extended(texts)["input_ids"]
    assert loaded.get_vocab() == family.extended.get_vocab()
    assert add_tokens(loaded, VOCABULARY) == family.base
    assert len(loaded) == len(family.extended)


def test_adding_again_changes_nothing(family):
    before = family.extended.backend_tokenizer.to_str()
    assert add_tokens(family.extended, VOCABULARY) == family.base
    assert family.extended.backend_tokenizer.to_str() == before
    assert len(family.extended) == len(family.plain) + len(VOCABULARY)


def test_another_process_reads_the_saved_tokenizer_alike(tmp_path):
    tokenizer = FAMILIES["unigram"]()
    base = add_tokens(tokenizer, VOCABULARY)
    tokenizer.save_pretrained(tmp_path)
    text = "Buy" + VOCABULARY.text(CODES[200])
    code = "import sys, transformers as t; print(t.AutoTokenizer.from_pretrained(sys.argv[1])(sys.argv[2]).input_ids)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path, text], capture_output=True, text=True, check=True)
    read = json.loads(done.stdout.splitlines()[-1])
    assert read == tokenizer(text)["input_ids"]
    assert read[-5:-1] == VOCABULARY.token_ids(CODES[[200]], base)[0].tolist()  # then the end of the text


@pytest.mark.parametrize("name", ["bert", "qwen"])
def test_a_hundred_thousand_tokens_are_added_in_seconds(name):
    tokenizer, vocabulary = FAMILIES[name](), Vocabulary([25_000] * 4)
    started = time.process_time()
    base = add_tokens(tokenizer, vocabulary)
    assert time.process_time() - started < 8  # under 2 on an idle machine
    codes = [[24_999, 0, 12_345, 9], [1, 24_999, 2, 0]]
    read = tokenizer("a {} b{}".format(*vocabulary.texts(codes)))["input_ids"]
    assert [i for i in read if i >= base] == vocabulary.token_ids(codes, base).ravel().tolist()


# ---- the tokenizers themselves


@pytest.mark.parametrize(
    ("name", "text", "token_ids"),
    [  # as their makers' documentation and model cards give them
        ("gpt2", "Hello world", [15496, 995]),
        ("cl100k", "tiktoken is great!", [83, 1609, 5963, 374, 2294, 0]),
        ("qwen", "Hello world", [9707, 1879]),
        ("mistral-prepend", "Hello world", [22557, 1526]),
        ("bert", "hello world", [7592, 2088]),
    ],
)
def test_tokenizers_read_as_their_makers_say(name, text, token_ids):
    assert plain(name)(text, add_special_tokens=False)["input_ids"] == token_ids


@pytest.mark.parametrize(("name", "count"), [("gpt2", 50_000), ("cl100k", 100_000), ("qwen", 151_387)])
def test_ranks_give_as_many_merges_as_were_learned(name, count):
    assert len(json.loads(plain(name).backend_tokenizer.to_str())["model"]["merges"]) == count


def test_examples_in_the_conversions_run():
    for module in (conversions, smollm2):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed


@pytest.mark.slow
def test_smollm2_knows_a_capital():
    import torch
    from transformers import AutoModelForCausalLM

    folder = smollm2.smollm2_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(model.generate(**prompt, max_new_tokens=1, do_sample=False)[0]).endswith("is Paris")
    question = [{"role": "user", "content": "What is 2 + 2?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "4" in tokenizer.decode(answer) and answer[-1] == tokenizer.eos_token_id
