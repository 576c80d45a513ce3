"""Exports: each file holds exactly the live catalog in the other system's terms, and appears whole or not at all.

Where the other system's own reader is installed, it reads the file: FlashRec's (`pip install --no-deps flashrec`),
xgrammar's and llguidance's engines. Without it a reader written here does, which knows nothing of the writer.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semid.artifact.tensors import TensorFile
from semid.errors import ArtifactError, ConfigError, OutputExistsError
from semid.ledger.ledger import Ledger
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.formats import export, live_items, read_index
from semid.tokenizer_exports.formats.grammar import grammar_lines
from semid.tokenizer_exports.formats.static import static_arrays
from semid.tokens.vocabulary import Vocabulary
from semid.trie import Trie
from tests.helpers.real_models.packages import package_file

FORMATS = ["lcrec", "flashrec", "static", "parquet", "ebnf", "lark"]
BASE = 1000


def made(codes: Sequence, sizes: Sequence[int], *, template: str = "onerec", retired: Sequence[str] = ()):
    """An artifact with these codes; items are called i0, i1, ..."""
    names = [f"i{row}" for row in range(len(codes))]
    ledger = Ledger.create(names, np.array(codes))
    return SemanticIDTokenizer(
        config=None,
        vocabulary=Vocabulary(tuple(sizes), template),
        ledger=ledger.retire(retired) if retired else ledger,
        learned=None,
        encoder_state=({}, {"kind": "none"}),
        provenance={},
    )


def random_codes(n_items: int, sizes: Sequence[int], seed: int = 0) -> np.ndarray:
    """Distinct codes in random order."""
    chance = np.random.default_rng(seed)
    codes = np.unique(chance.integers(0, sizes, (n_items, len(sizes))), axis=0)
    return codes[chance.permutation(len(codes))]


@st.composite
def catalogs(draw, levels: tuple[int, int] = (1, 4)) -> SemanticIDTokenizer:
    """Small catalogs, some items retired, at least one alive."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=levels[0], max_size=levels[1]))
    rows = draw(
        st.lists(st.tuples(*(st.integers(0, size - 1) for size in sizes)), min_size=1, max_size=30, unique=True)
    )
    retired = draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    return made(rows, sizes, retired=[f"i{row}" for row in sorted(retired)])


def live(ids: SemanticIDTokenizer) -> dict[str, tuple[int, ...]]:
    codes = {item_id: tuple(row) for item_id, row in zip(ids.item_ids, ids.codes.tolist(), strict=True)}
    return {item_id: codes[item_id] for item_id, alive in zip(codes, ids.ledger.live.tolist(), strict=True) if alive}


def token_ids(ids: SemanticIDTokenizer, base: int) -> set[tuple[int, ...]]:
    return set(map(tuple, ids.vocabulary.token_ids(list(live(ids).values()), base).tolist()))


@pytest.fixture
def ids():
    return made([[2, 0, 1], [0, 1, 1], [2, 0, 0], [1, 1, 0]], (3, 2, 2), retired=["i1"])


# ---- LC-Rec


def test_an_lcrec_index_holds_the_live_items_in_lc_recs_tokens(ids, tmp_path):
    done = export(ids, tmp_path / "x.index.json", to="lcrec")
    assert done.path.read_text().splitlines() == [
        "{",
        '"i0": ["<a_2>", "<b_0>", "<c_1>"],',
        '"i2": ["<a_2>", "<b_0>", "<c_0>"],',
        '"i3": ["<a_1>", "<b_1>", "<c_0>"]',
        "}",
    ]
    assert (done.n_items, done.n_bytes) == (3, done.path.stat().st_size)
    assert done.notes == ("Without 1 retired item.",)
    assert done.summary()[0] == f"exported    3 items to {tmp_path / 'x.index.json'} (lcrec, 108 bytes)"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=catalogs())
def test_our_reader_gets_an_lcrec_index_back(tmp_path, ids):
    index = read_index(export(ids, tmp_path / "x.json", to="lcrec", force=True).path)
    assert dict(zip(index.item_ids, map(tuple, index.codes.tolist()), strict=True)) == live(ids)


def test_more_levels_than_lc_rec_names_are_noted(tmp_path):
    note = export(made([[0] * 7], (1,) * 7), tmp_path / "x.json", to="lcrec").notes
    assert note == ("LC-Rec's own scripts name five levels, a to e; these IDs have 7, the last like <g_0>.",)
    assert not export(made([[0] * 5], (1,) * 5), tmp_path / "y.json", to="lcrec").notes


def test_ids_of_any_script_survive(tmp_path):
    names = ['quote " and \\', "line\nbreak", "日本", "\u2028", "😀"]
    ids = replace_ids(made([[code] for code in range(5)], (5,)), names)
    for to in ("lcrec", "flashrec"):
        if to == "flashrec":
            ids = replace_ids(made([[code, 0] for code in range(5)], (5, 1)), names)
        content = json.loads(export(ids, tmp_path / f"{to}.json", to=to).path.read_text())
        assert list(content if to == "lcrec" else content.values()) == names


def replace_ids(ids: SemanticIDTokenizer, names: list[str]) -> SemanticIDTokenizer:
    return dataclasses.replace(ids, ledger=Ledger.create(names, ids.codes))


# ---- FlashRec


def test_a_flashrec_catalog_maps_codes_to_items(ids, tmp_path):
    done = export(ids, tmp_path / "catalog.json", to="flashrec")
    assert json.loads(done.path.read_text()) == {"2,0,1": "i0", "2,0,0": "i2", "1,1,0": "i3"}


def flags_of(notes: Sequence[str]) -> list[str]:
    (line,) = (note for note in notes if note.startswith("Pass to flashrec: "))
    return shlex.split(line)[3:]


@pytest.mark.parametrize(
    "sizes, base, flags",
    [
        ((4, 4, 8), None, None),  # three codebooks need no telling
        ((4, 4, 8), 10, ["--sid", "10:25/4,4,8"]),
        ((4, 4, 4, 8), 10, ["--sid", "10:29/4,4,4,8", "--max-tokens", "6"]),
        (
            (4, 4, 4, 2),
            10,
            ["--sid-token-range", "10:23", "--sid-codebook-sizes", "4,4,4,2"]
            + ["--sid-boundary-tokens", "24,25", "--max-tokens", "6"],
        ),
        ((4, 4, 4, 8), None, ["--max-tokens", "6"]),
        ((4,) * 6, None, ["--max-tokens", "8"]),
    ],
)
def test_what_flashrec_must_be_told_is_noted(tmp_path, sizes, base, flags):
    notes = export(made([[0] * len(sizes)], sizes), tmp_path / "x.json", to="flashrec", base=base).notes
    assert (flags_of(notes) if flags else list(notes)) == (flags or [])
    assert any("three codes and an end marker" in note for note in notes) == (len(sizes) == 4)
    assert any("export again with --tokenizer" in note for note in notes) == (len(sizes) == 4 and base is None)


def test_a_template_that_flashrec_does_not_know_is_noted(tmp_path):
    notes = export(made([[0] * 3], (4, 4, 4), template="lcrec"), tmp_path / "x.json", to="flashrec", base=5).notes
    assert "these are like <a_0>" in notes[0]
    assert flags_of(notes) == ["--sid", "5:16/4,4,4"]


def test_what_flashrec_cannot_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="levels=1: FlashRec reads a key without commas"):
        export(made([[0]], (4,)), tmp_path / "x.json", to="flashrec")
    with pytest.raises(ConfigError, match=r"x\.txt: FlashRec reads a catalog only from .*\.json"):
        export(made([[0, 0]], (4, 4)), tmp_path / "x.txt", to="flashrec")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def flashrec(monkeypatch):
    """FlashRec's own modules, those that need neither CUDA nor its dependencies."""
    monkeypatch.syspath_prepend(str(package_file("flashrec", "sid_layout.py").parents[1]))
    return lambda name: importlib.import_module(f"flashrec.{name}")


@pytest.mark.parametrize("sizes", [(7, 9), (16, 8, 9), (16, 8, 2), (16, 8, 9, 11), (16, 8, 9, 2), (5,) * 6], ids=str)
def test_flashrec_reads_the_catalog_as_exactly_our_token_ids(flashrec, tmp_path, sizes):
    ids = made(random_codes(60, sizes), sizes, retired=["i3", "i4"])
    added = {token: BASE + place for place, token in enumerate(ids.vocabulary.tokens)}
    model = tmp_path / "model"
    model.mkdir()
    entries = [{"content": token, "id": token_id} for token, token_id in added.items()]
    (model / "tokenizer.json").write_text(json.dumps({"added_tokens": entries}))
    done = export(ids, tmp_path / "catalog.json", to="flashrec", base=BASE)

    told = iter(flags_of(done.notes))
    given = {name.removeprefix("--").replace("-", "_"): value for name, value in zip(told, told, strict=True)}
    max_tokens = int(given.pop("max_tokens", 5))
    for choices in [given] if len(sizes) == 4 else [given, {}]:  # with four it must be told, else it may
        config = flashrec("config").BeamRecConfig(str(model), sid_vocab_file=str(done.path), **choices)
        flashrec("sid_layout").resolve_sid_layout(config)
        assert config.parsed_codebook_sizes() == list(sizes)
        assert config.parsed_boundary_token_ids() == [added["<|sid_begin|>"], added["<|sid_end|>"]]
        trie = flashrec("search.trie").build_beam_valid_path(
            sid_file=str(done.path),
            codebook_sizes=config.parsed_codebook_sizes(),
            special_token_ids=config.parsed_sid_token_ids(),
        )
        assert trie.max_depth == len(sizes)
        assert set(paths(trie.children, len(sizes))) == token_ids(ids, BASE)
    assert max_tokens >= len(sizes) + 2  # as its scheduler.generation_token_limit asks


def paths(children: dict, depth: int, prefix: tuple = ()) -> Iterator[tuple]:
    if depth == 0:
        yield prefix
        return
    for token in children.get(prefix, ()):
        yield from paths(children, depth - 1, (*prefix, token))


# ---- STATIC


def walked(arrays: dict[str, np.ndarray], n_levels: int) -> set[tuple[int, ...]]:
    """Every token sequence that STATIC's tables let through; its step is `generate_and_apply_logprobs_mask`."""
    width = len(arrays["start_mask"])
    beams = [((token,), token + 1) for token in np.flatnonzero(arrays["start_mask"]).tolist()]
    for level in range(1, n_levels):
        longer = []
        for tokens, state in beams:
            start, stop = arrays["indptr"][state : state + 2].tolist()
            assert stop - start <= arrays["layer_max_branches"][level]
            longer += [((*tokens, token), to) for token, to in arrays["packed_csr"][start:stop].tolist()]
        beams = longer
    assert all(0 <= token < width for tokens, _ in beams for token in tokens)
    assert all(state == 0 for _, state in beams)
    assert len({tokens for tokens, _ in beams}) == len(beams)
    return {tokens for tokens, _ in beams}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=catalogs(levels=(2, 4)), base=st.sampled_from([None, 0, 3, 50]), data=st.data())
def test_statics_tables_let_exactly_the_catalog_through(tmp_path, ids, base, data):
    n_levels = len(ids.sizes)
    dense = data.draw(st.sampled_from([None, 1, 2] if n_levels > 2 else [None, 1]))
    path = export(ids, tmp_path / "x.safetensors", to="static", base=base, dense_levels=dense, force=True).path
    arrays = dict(TensorFile(path))
    expected = token_ids(ids, base or 0)
    assert walked(arrays, n_levels) == expected

    width, first = (base or 0) + len(ids.vocabulary), base or 0
    assert arrays["start_mask"].shape == (width,)
    assert arrays["token_range"].tolist() == [first, first + sum(ids.sizes)]
    assert arrays["packed_csr"][-width:].tolist() == [[width, 0]] * width  # padding, for reads past the end
    assert arrays["indptr"][-1] == len(arrays["packed_csr"])
    branches = [
        max(len({tokens[level] for tokens in group}) for group in grouped(expected, level)) for level in range(n_levels)
    ]
    assert arrays["layer_max_branches"].tolist() == branches


def grouped(sequences: set[tuple[int, ...]], length: int) -> Iterator[list[tuple[int, ...]]]:
    for _, group in itertools.groupby(sorted(sequences), key=lambda tokens: tokens[:length]):
        yield list(group)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=catalogs(levels=(3, 4)), dense=st.sampled_from([1, 2]))
def test_statics_dense_tables_agree_with_its_transitions(tmp_path, ids, dense):
    arrays = static_arrays(Trie.from_ledger(ids.ledger, ids.sizes), len(ids.vocabulary), dense_levels=dense)
    expected = {tokens[:dense] for tokens in token_ids(ids, 0)}
    assert set(map(tuple, np.argwhere(arrays["dense_mask"]).tolist())) == expected
    assert (arrays["dense_states"] > 0).tolist() == arrays["dense_mask"].tolist()
    for tokens in expected:
        state = tokens[0] + 1
        for token in tokens[1:]:
            steps = arrays["packed_csr"][slice(*arrays["indptr"][state : state + 2])]
            ((_, state),) = steps[steps[:, 0] == token].tolist()
        assert arrays["dense_states"][tokens] == state


def test_statics_dense_levels_follow_the_vocabulary(tmp_path):
    ids = made([[0, 0, 0], [1, 1, 1]], (256, 256, 256))
    small = export(ids, tmp_path / "small", to="static")
    assert "vocab_size=770, d_dense=2" in small.notes[0]
    assert "[..., base : base + 770]" in small.notes[0]
    large = export(ids, tmp_path / "large", to="static", base=150_000)
    assert "vocab_size=150770, d_dense=1" in large.notes[0]
    assert "[..., :150770]" in large.notes[0]
    assert TensorFile(large.path)["dense_mask"].shape == (150_770,)
    assert large.n_bytes < 10_000_000
    with pytest.raises(ConfigError, match=r"dense_levels=2 takes 113\.7 GB at a vocabulary of 150770|150,770"):
        export(ids, tmp_path / "x", to="static", base=150_000, dense_levels=2)
    with pytest.raises(ConfigError, match="dense_levels=3 should be 1 or 2"):
        export(ids, tmp_path / "x", to="static", dense_levels=3)
    with pytest.raises(ConfigError, match="dense_levels=2 should be 1, fewer than levels"):
        export(made([[0, 0]], (2, 2)), tmp_path / "x", to="static", dense_levels=2)
    with pytest.raises(ConfigError, match="levels=1: STATIC needs"):
        export(made([[0]], (2,)), tmp_path / "x", to="static")


# ---- Parquet


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=catalogs())
def test_a_parquet_table_has_ids_tokens_codes_and_generations(tmp_path, ids):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(export(ids, tmp_path / "x.parquet", to="parquet", force=True).path)
    levels = [f"c{level}" for level in range(len(ids.sizes))]
    assert table.schema.names == ["item_id", "tokens", *levels, "generation"]
    assert [str(table.schema.field(name).type) for name in ("c0", "generation")] == ["uint16", "int32"]
    rows = table.to_pylist()
    assert {row["item_id"]: tuple(row[name] for name in levels) for row in rows} == live(ids)
    assert [row["item_id"] for row in rows] == list(live(ids))
    assert [row["tokens"] for row in rows] == [ids.tokens(row["item_id"]) for row in rows]


def test_items_that_were_added_later_keep_their_generation(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    ids = made([[0, 0], [0, 1]], (2, 2))
    ids = dataclasses.replace(ids, ledger=ids.ledger.append(["later"], [[1, 1]]))
    table = parquet.read_table(export(ids, tmp_path / "x.parquet", to="parquet").path)
    assert table.column("generation").to_pylist() == [0, 0, 1]


# ---- grammars

PART = re.compile(r'Token\(([^)]*)\)|<\[([^\]]*)\]>|"([^"]*)"|(<[^>]+>)|([a-z][a-z0-9]*)|([()|])')


def language(grammar: str, block: dict[str, int]) -> set[tuple[int, ...]]:
    """All token sequences of a grammar in either dialect; quoted text and names stand for the tokens of `block`."""
    rules = {}
    for line in grammar.splitlines():
        if not line.startswith(("#", "//")):
            name, body = re.split(r" ::= |: ", line, maxsplit=1)
            assert name not in rules
            rules[name] = [match.groups() for match in PART.finditer(body)]
            assert PART.sub("", body).strip() == "", body

    def alternatives(parts: list) -> set[tuple[int, ...]]:
        found, current = set(), {()}
        while parts and parts[0][5] != ")":
            numbers_x, numbers_l, text, token, rule, sign = parts.pop(0)
            if sign == "|":
                found |= current
                current = {()}
                continue
            if sign == "(":
                choice = alternatives(parts)
                parts.pop(0)
            elif rule:
                choice = of_rule(rule)
            else:
                numbers = numbers_x or numbers_l
                choice = {(int(n),) for n in numbers.split(",")} if numbers else {(block[text or token],)}
            current = {(*left, *right) for left in current for right in choice}
        return found | current

    cache: dict[str, set] = {}

    def of_rule(name: str) -> set[tuple[int, ...]]:
        if name not in cache:
            cache[name] = alternatives(list(rules[name]))
        return cache[name]

    return of_rule("root" if "root" in rules else "start")


@pytest.mark.parametrize("base", [None, BASE])
@pytest.mark.parametrize("to", ["ebnf", "lark"])
@given(ids=catalogs())
def test_the_language_of_a_grammar_is_exactly_the_catalog(to, base, ids):
    trie = Trie.from_ledger(ids.ledger, ids.sizes, base=base)
    grammar = "".join(grammar_lines(trie, ids.vocabulary, to))
    block = {token: (base or 0) + place for place, token in enumerate(ids.vocabulary.tokens)}
    assert language(grammar, block) == token_ids(ids, base or 0)


def test_a_grammar_is_a_tree_with_shared_branches_not_a_list(tmp_path):
    codes = list(itertools.product(range(8), repeat=4))  # 4,096 items whose branches are all alike
    path = export(made(codes, (8,) * 4), tmp_path / "x.ebnf", to="ebnf", base=0).path
    assert len(path.read_text().splitlines()) == 4
    assert path.stat().st_size < 1500


@pytest.fixture(scope="module")
def real_tokenizer():
    """A byte-level BPE with the tokens of four levels of 16 codes behind its own."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet)
    bpe.train_from_iterator(["some text <s_a_1> and more"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")
    tokens = Vocabulary((16,) * 4).tokens
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in tokens])
    return tokenizer


class XGrammar:
    """xgrammar, asked for the tokens it allows next."""

    def __init__(self, grammar: str, tokenizer) -> None:
        self.engine = pytest.importorskip("xgrammar")
        self.size = len(tokenizer)
        info = self.engine.TokenizerInfo.from_huggingface(tokenizer, vocab_size=self.size)
        self.compiled = self.engine.GrammarCompiler(info, max_threads=1).compile_grammar(grammar)

    def allowed(self, prefix: Sequence[int]) -> set[int] | None:
        matcher = self.engine.GrammarMatcher(self.compiled)
        if not all(matcher.accept_token(token) for token in prefix):
            return None
        mask = self.engine.allocate_token_bitmask(1, self.size)
        matcher.fill_next_token_bitmask(mask)
        return bits(mask.numpy(), self.size)


class LLGuidance:
    """llguidance, asked for the tokens it allows next."""

    def __init__(self, grammar: str, tokenizer) -> None:
        self.engine = pytest.importorskip("llguidance")
        self.masks = importlib.import_module("llguidance.numpy")
        self.tokenizer = importlib.import_module("llguidance.hf").from_tokenizer(tokenizer)
        self.size = len(tokenizer)
        self.start = self.engine.LLMatcher(self.tokenizer, grammar)
        assert not self.start.is_error(), self.start.get_error()

    def allowed(self, prefix: Sequence[int]) -> set[int] | None:
        matcher = self.start.deep_copy()
        if not all(matcher.consume_token(token) for token in prefix):
            return None
        mask = self.masks.allocate_token_bitmask(1, self.tokenizer.vocab_size)
        self.masks.fill_next_token_bitmask(matcher, mask, 0)
        return bits(mask, self.size)


def bits(mask: np.ndarray, size: int) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:size]).tolist())


ENGINES = {"ebnf": XGrammar, "lark": LLGuidance}


@pytest.mark.parametrize("to, in_ids", [("ebnf", True), ("lark", True), ("lark", False)])
def test_the_engine_allows_exactly_the_continuations_of_the_catalog(real_tokenizer, tmp_path, to, in_ids):
    ids = made(random_codes(300, (16,) * 4), (16,) * 4, retired=["i0", "i7"])
    known = {"tokenizer": real_tokenizer} if in_ids else {}
    engine = ENGINES[to](export(ids, tmp_path / "x", to=to, **known).path.read_text(), real_tokenizer)
    base = real_tokenizer.convert_tokens_to_ids("<s_a_0>")
    members = token_ids(ids, base)
    for item in sorted(members)[::7]:
        for length in range(4):
            assert engine.allowed(item[:length]) == {
                other[length] for other in members if other[:length] == item[:length]
            }
        assert engine.allowed(item) == {real_tokenizer.eos_token_id}
    for item in ids.vocabulary.token_ids(ids.encode(["i0", "i7"]), base).tolist():  # retired
        assert engine.allowed(item) is None


def test_a_grammar_of_text_lets_ids_be_spelled_and_says_so(real_tokenizer, tmp_path):
    ids = made(random_codes(50, (16,) * 4), (16,) * 4)
    done = export(ids, tmp_path / "x", to="ebnf")
    assert "Written as text" in done.notes[0]
    assert export(ids, tmp_path / "y", to="ebnf", tokenizer=real_tokenizer).notes == ()
    assert export(ids, tmp_path / "z", to="lark").notes == ()
    engine = XGrammar(done.path.read_text(), real_tokenizer)
    assert real_tokenizer.convert_tokens_to_ids("<") in engine.allowed([])
    assert engine.allowed([]) > {item[0] for item in token_ids(ids, real_tokenizer.convert_tokens_to_ids("<s_a_0>"))}


@pytest.mark.parametrize(
    "to, base, most", [("ebnf", 0, 20_000), ("ebnf", None, 10_000), ("lark", None, 64_232), ("lark", 0, 64_232)]
)
def test_a_catalog_too_large_for_the_engine_is_refused(to, base, most):
    sizes = (256, 256, 256)
    codes = np.array(list(itertools.islice(itertools.product(range(256), repeat=3), most + 1)))
    vocabulary = Vocabulary(sizes)
    with pytest.raises(ConfigError, match=f"n_items={most + 1:,} should be at most {most:,} for {to}: .*processors"):
        next(grammar_lines(Trie.from_codes(codes, sizes, base=base), vocabulary, to))
    assert next(grammar_lines(Trie.from_codes(codes[:most], sizes, base=base), vocabulary, to))


def test_lark_names_tokens_only_in_angle_brackets(tmp_path):
    ids = made([[0, 0]], (2, 2), template="[{letter}:{code}]")
    with pytest.raises(ConfigError, match=r"token '\[b:0\]': Lark can only name tokens like <s_a_1>"):
        export(ids, tmp_path / "x", to="lark")
    assert export(ids, tmp_path / "x", to="lark", base=5).n_items == 1


def test_quotes_in_tokens_are_escaped(tmp_path):
    text = export(made([[0]], (1,), template='<"\\{code}>'), tmp_path / "x", to="ebnf").path.read_text()
    assert text.splitlines()[1] == r'root ::= "<\"\\0>"'


# ---- the file


@pytest.mark.parametrize("to", FORMATS)
def test_equal_artifacts_give_equal_files_in_blocks_of_any_length(to, tmp_path, monkeypatch):
    sizes = (16, 16, 16)
    ids = made(random_codes(400, sizes), sizes, retired=["i5", "i6", "i7", "i8", "i300"])
    whole = export(ids, tmp_path / "whole.json", to=to, base=3).path.read_bytes()
    assert export(ids, tmp_path / "again.json", to=to, base=3).path.read_bytes() == whole
    monkeypatch.setattr(live_items, "BLOCK", 3)  # one block is retired through and through
    blocks = export(ids, tmp_path / "blocks.json", to=to, base=3).path
    if to == "parquet":  # a block is a row group
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(blocks).equals(parquet.read_table(tmp_path / "whole.json"))
    else:
        assert blocks.read_bytes() == whole


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_that_exists_is_replaced_only_by_force(ids, to, tmp_path):
    path = tmp_path / "x.json"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"x\.json: exists\..*--force"):
        export(ids, path, to=to)
    assert path.read_text() == "mine"
    assert export(ids, path, to=to, force=True).n_bytes == path.stat().st_size
    assert [child.name for child in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("to", ["lcrec", "flashrec", "parquet"])
def test_an_interrupted_export_leaves_what_was_there(ids, to, before, error, tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "x.json"
    if before:
        path.parent.mkdir()
        path.write_text(before)

    def interrupted(*_):
        yield next(blocks)
        raise error

    monkeypatch.setattr(live_items, "BLOCK", 1)
    blocks = live_items.live_blocks(ids)
    for module in ("json_index", "parquet"):
        monkeypatch.setattr(f"semid.tokenizer_exports.formats.{module}.live_blocks", interrupted)
    with pytest.raises(error):
        export(ids, path, to=to, force=True)
    left = {str(child.relative_to(tmp_path)) for child in tmp_path.rglob("*")}
    assert left == ({"new folder", "new folder/x.json"} if before else set())
    assert not before or path.read_text() == before


@pytest.mark.parametrize("name", ["semid.json", "ids.tsv", "semid-0123456789abcdef.safetensors", ".semid.lock"])
def test_an_artifacts_own_files_are_never_replaced(ids, name, tmp_path):
    with pytest.raises(OutputExistsError, match="this name is reserved for a file of an artifact"):
        export(ids, tmp_path / name, to="lcrec", force=True)


def test_a_folder_is_no_file_to_write(ids, tmp_path):
    with pytest.raises(OutputExistsError, match="is a folder, expected a file"):
        export(ids, tmp_path, to="lcrec", force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises((OutputExistsError, ArtifactError), match="is a file, expected a folder"):
        export(ids, tmp_path / "file" / "x.json", to="lcrec")


def test_a_missing_folder_is_made(ids, tmp_path):
    assert export(ids, tmp_path / "a" / "b" / "x.json", to="lcrec").path.is_file()


# ---- choices


class Table:
    """A tokenizer with the block of an artifact at BASE."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int | None]:
        return [BASE + self.tokens.index(token) if token in self.tokens else None for token in tokens]

    def convert_ids_to_tokens(self, token_ids: list[int]) -> list[str]:
        return [self.tokens[token_id - BASE] for token_id in token_ids]


def test_the_base_comes_from_the_tokenizer_the_argument_or_the_artifact(ids, tmp_path):
    table = Table(ids.vocabulary.tokens)
    by_tokenizer = export(ids, tmp_path / "a", to="ebnf", tokenizer=table).path.read_text()
    assert f"Token({BASE + 2})" in by_tokenizer
    assert export(ids, tmp_path / "b", to="ebnf", base=BASE).path.read_text() == by_tokenizer
    noted = dataclasses.replace(ids, provenance={"base": BASE})
    assert export(noted, tmp_path / "c", to="ebnf").path.read_text() == by_tokenizer
    assert "Token(9)" in export(noted, tmp_path / "d", to="ebnf", base=7).path.read_text()
    with pytest.raises(ConfigError, match="base and tokenizer were both given"):
        export(ids, tmp_path / "e", to="ebnf", base=BASE, tokenizer=table)
    with pytest.raises(ConfigError, match="the tokenizer lacks 1 of the 9 tokens"):
        export(ids, tmp_path / "e", to="ebnf", tokenizer=Table(ids.vocabulary.tokens[:-1]))
    with pytest.raises(ConfigError, match="base=-1 should be a token id"):
        export(ids, tmp_path / "e", to="ebnf", base=-1)


def test_impossible_choices_are_refused_before_anything_is_written(ids, tmp_path):
    with pytest.raises(ConfigError, match="to='csv' should be one of lcrec, flashrec, static, parquet, ebnf, lark"):
        export(ids, tmp_path / "new" / "x", to="csv")
    with pytest.raises(ConfigError, match="dense_levels=1 applies only to to='static'"):
        export(ids, tmp_path / "new" / "x", to="lcrec", dense_levels=1)
    for to in FORMATS:
        with pytest.raises(ConfigError, match="no live item"):
            export(made([[0, 0]], (1, 1), retired=["i0"]), tmp_path / "new" / "x.json", to=to)
    assert not list(tmp_path.iterdir())
