"""A catalog that lives: random adding, retiring, refitting, reloading and reading beside a plain dictionary.

The artifact lies in a real folder and has so few codes that prefixes, and at times all of it, fill up. After every
step the invariants of `docs/architecture.md` are checked against the dictionary.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from semid.errors import ArtifactError, CapacityError, UnknownIDError
from semid.pipeline import update as changing
from semid.pipeline.refit import refit
from semid.tokenizer import SemanticIDTokenizer
from semid.trie import Trie
from tests.helpers.small_shop import faults, learned, names, records, vectors

SIZES = (4, 4, 4)
EVERY_ID = list(itertools.product(*map(range, SIZES)))
POOL = names(90)  # more items than IDs
FITTED = 24
TEXTS = st.sampled_from(["thing", "other"])
SOME = st.tuples(st.integers(0, len(POOL) - 1), st.integers(1, 30)).map(lambda pair: POOL[pair[0] :][: pair[1]])


@dataclass(frozen=True)
class Item:
    """What is known of an item without semid."""

    codes: tuple[int, ...]
    added: int
    text: str
    retired: int = 0


@cache
def template() -> Path:
    """An artifact to start from, made once."""
    folder = Path(tempfile.mkdtemp(prefix="semid-living-")) / "ids"
    learned(POOL[:FITTED], levels=len(SIZES), codebook_size=SIZES[0]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _no_template_is_left():
    yield
    shutil.rmtree(template().parent)
    template.cache_clear()


class Living(RuleBasedStateMachine):
    """The model is item id -> Item, in the order of the table; readers are tokenizers with the model they opened."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="semid-living-"))
        self.folder = self.root / "0"
        self.readers: list[tuple[SemanticIDTokenizer, dict[str, Item]]] = []
        self.n_folders = 1

    @initialize()
    def start(self):
        shutil.copytree(template(), self.folder)
        self.begin()

    def begin(self):
        """Take over a new artifact, generation 0."""
        ids = SemanticIDTokenizer.from_pretrained(self.folder)
        self.generation = 0
        rows = zip(ids.item_ids, map(tuple, ids.codes.tolist()), ids.texts, strict=True)
        self.model = {item_id: Item(codes, 0, text) for item_id, codes, text in rows}

    def teardown(self):
        self.readers.clear()
        shutil.rmtree(self.root)

    # ---- the model's answers

    @property
    def live(self):
        return [item_id for item_id, item in self.model.items() if not item.retired]

    def in_use(self, reuse_after):
        """The codes that the next generation may not give out."""
        last = {item.codes: item for item in self.model.values()}
        age = {codes: self.generation + 1 - item.retired for codes, item in last.items() if item.retired}
        return {codes for codes in last if codes not in age or reuse_after is None or age[codes] < reuse_after}

    def n_free(self, reuse_after=None):
        return len(EVERY_ID) - len(self.in_use(reuse_after))

    # ---- changes

    @rule(chosen=SOME, text=TEXTS, update=st.booleans(), reuse_after=st.sampled_from([None, None, 1, 2, 3]))
    def add(self, chosen, text, update, reuse_after):
        new = sorted(set(chosen) - self.model.keys())
        source, ready = records(chosen, text), vectors(chosen)
        choices = {"embeddings": ready, "update": update, "reuse_after": reuse_after}
        if len(new) > self.n_free(reuse_after):
            with pytest.raises(CapacityError):
                changing.add(self.folder, source, **choices)
            return
        self.note_added(changing.add(self.folder, source, **choices), chosen, new, text, update, reuse_after)

    def note_added(self, report, chosen, new, text, update, reuse_after):
        known = [item_id for item_id in chosen if item_id in self.model]
        here = [item_id for item_id in known if not self.model[item_id].retired]
        other = [item_id for item_id in here if self.model[item_id].text != f"{text} {item_id}"]
        taken = self.in_use(reuse_after)
        self.generation += bool(new or (update and other))
        assert report.generation == self.generation
        assert report.added == len(new) == report.first_choice + report.moved + report.moved_prefix
        assert report.unchanged == len(here) - len(other)
        assert (report.updated, report.differing) == ((len(other), []) if update else (0, other))
        assert report.retired == [item_id for item_id in known if self.model[item_id].retired]
        if update:
            self.model |= {item_id: replace(self.model[item_id], text=f"{text} {item_id}") for item_id in other}
        ids = SemanticIDTokenizer.from_pretrained(self.folder)
        for item_id, codes in zip(new, map(tuple, ids.encode(new).tolist()), strict=True):
            assert codes not in taken  # of a live item, or of a retired one whose ID is not given out again
            self.model[item_id] = Item(codes, self.generation, f"{text} {item_id}")

    @rule(data=st.data())
    def retire(self, data):
        chosen = data.draw(st.lists(st.sampled_from(list(self.model)), unique=True, max_size=8))
        gone = [item_id for item_id in chosen if not self.model[item_id].retired]
        if len(gone) == len(self.live):
            return  # a trie needs an item
        report = changing.retire(self.folder, chosen)
        self.generation += bool(gone)
        assert report == changing.Retired(self.generation, len(gone), len(chosen) - len(gone))
        self.model |= {item_id: replace(self.model[item_id], retired=self.generation) for item_id in gone}

    @rule(data=st.data())
    def retire_with_a_slip(self, data):
        chosen = data.draw(st.lists(st.sampled_from(list(self.model)), max_size=3))
        with pytest.raises(UnknownIDError, match="'i9' is not among"):
            changing.retire(self.folder, [*chosen, "i9"])

    @rule(data=st.data(), keep_prefix=st.sampled_from([0, 0, 1, 2]), in_place=st.booleans())
    def refit(self, data, keep_prefix, in_place):
        survivors = data.draw(st.lists(st.sampled_from(self.live), unique=True, min_size=1, max_size=30))
        new = data.draw(SOME)
        catalog = sorted({*survivors, *new})
        old = SemanticIDTokenizer.from_pretrained(self.folder)
        try:
            ids, churn = refit(old, records(catalog), embeddings=vectors(catalog), keep_prefix=keep_prefix)
        except CapacityError:
            assert keep_prefix  # more must stay under a prefix than it has IDs
            return
        both = [item_id for item_id in catalog if item_id in self.model]
        assert (churn.surviving, churn.new) == (len(both), len(catalog) - len(both))
        kept = [self.model[item_id].codes[:keep_prefix] for item_id in both]
        self.folder = self.folder if in_place else self.fresh_folder()
        ids.save_pretrained(self.folder, force=in_place)
        self.begin()
        assert list(self.model) == catalog
        assert [self.model[item_id].codes[:keep_prefix] for item_id in both] == kept

    # ---- reading

    def fresh_folder(self):
        self.n_folders += 1
        return self.root / str(self.n_folders)

    @rule()
    def reload(self):
        """What is saved after loading is the same artifact, and life goes on there."""
        ids, before = SemanticIDTokenizer.from_pretrained(self.folder), self.folder
        self.folder = self.fresh_folder()
        assert ids.save_pretrained(self.folder) == changing.artifact.load(before).fingerprint

    @rule()
    @precondition(lambda self: len(self.readers) < 3)
    def open_a_reader(self):
        self.readers.append((SemanticIDTokenizer.from_pretrained(self.folder), dict(self.model)))

    @rule(chosen=SOME)
    def add_beside_a_reader(self, chosen):
        """A reader that opens the folder again and again sees the generation before or the one after."""
        if len(set(chosen) - self.model.keys()) > self.n_free():
            return
        lengths, seen, done = {self.generation: len(self.model)}, [], threading.Event()
        live = self.live[0]

        def read():
            while not done.is_set():
                ids = SemanticIDTokenizer.from_pretrained(self.folder)
                seen.append((ids.ledger.last_generation, len(ids), ids.decode(ids.tokens(live))))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            self.add(chosen, "thing", False, None)
        finally:
            done.set()
            reader.join()
        lengths[self.generation] = len(self.model)
        assert all(lengths.get(generation) == length and one == live for generation, length, one in seen)

    @rule()
    def write_beside_a_writer(self):
        with changing.artifact.changing(self.folder), pytest.raises(ArtifactError, match="is writing here"):
            changing.retire(self.folder, self.live[:1])

    # ---- after every step

    @invariant()
    def the_folder_is_whole(self):
        assert faults(self.folder) == []
        assert not [path for path in self.folder.iterdir() if path.name.startswith(".")]

    @invariant()
    def the_artifact_is_the_model(self):
        ids = SemanticIDTokenizer.from_pretrained(self.folder)
        agrees(ids, self.model)
        assert [one["generation"] for one in ids.history] == list(range(self.generation + 1))
        assert sum(one.get("added", 0) for one in ids.history) == len(self.model)
        assert sum(one.get("retired", 0) for one in ids.history) == len(self.model) - len(self.live)

    @invariant()
    def readers_keep_their_generation(self):
        for ids, model in self.readers:
            agrees(ids, model)


def agrees(ids: SemanticIDTokenizer, model: dict[str, Item]) -> None:
    """All that can be asked of the tokenizer is what the dictionary says."""
    live = {item_id: item.codes for item_id, item in model.items() if not item.retired}
    owner = {item.codes: item_id for item_id, item in model.items()}  # of several, the last
    assert list(ids.item_ids) == list(model)
    assert list(map(tuple, ids.codes.tolist())) == [item.codes for item in model.values()]
    assert ids.ledger.generation.tolist() == [item.added for item in model.values()]
    assert ids.ledger.retired_in.tolist() == [item.retired for item in model.values()]
    assert list(ids.texts) == [item.text for item in model.values()]
    assert len(set(live.values())) == len(live) == ids.ledger.n_live
    assert ids.decode(ids.tokens(list(live))) == list(live)
    assert ids.decode(np.array(EVERY_ID)) == [owner.get(codes) for codes in EVERY_ID]
    parsed = ids.parse("".join(ids.tokens(list(model))))
    assert [one.retired for one in parsed] == [bool(model[owner[item.codes]].retired) for item in model.values()]
    trie = Trie.from_tokenizer(ids)
    accepted = {codes for codes, inside in zip(EVERY_ID, trie.contains(EVERY_ID).tolist(), strict=True) if inside}
    assert accepted == set(live.values())
    rows = trie.rows_of(trie.walk(list(live.values())))
    assert [ids.item_ids[row] for row in rows.tolist()] == list(live)


TestLiving = Living.TestCase
TestLiving.settings = settings(max_examples=10, stateful_step_count=16, deadline=None)


class LivingLonger(Living):
    pass


TestLivingLonger = pytest.mark.slow(LivingLonger.TestCase)
TestLivingLonger.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
