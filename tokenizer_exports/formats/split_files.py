"""write_split: the same training, validation and test rows, as files that other trainers read.

    histories.jsonl                       {"user", "items", "n_valid", "n_test"}: semid, with --split own     jsonl
    train.jsonl                           {"user", "items"}: training histories                               jsonl
    valid.jsonl, test.jsonl               {"user", "history", "item"}: a held-out item and all before it      jsonl
    NAME.inter.json                       {user: items}: LC-Rec and LETTER, which hold out the last two        lcrec
    minionerec/train/NAME.csv, ...        a row for each item with a history before it: MiniOneRec       minionerec
    recbole/NAME/NAME.train.inter, ...    the same rows: RecBole, with benchmark_filename                   recbole

Items keep their ids in all of them, so `semid export --to lcrec` writes the index that goes with them. A row exists for
every item of a user but the first. U users.

Not here: where histories are cut (`semid/data/splits.py`), records with prompts (`tokenizer_exports/alignment`).
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from semid.artifact.atomic import check_folder
from semid.artifact.staging import staged_folder
from semid.data.interaction_reader import read_interactions
from semid.data.interactions import Interactions
from semid.data.splits import split_ends
from semid.errors import ConfigError, InputError, OutputExistsError
from semid.runtime.checks import check_choice, plural
from semid.runtime.progress import track
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.formats.live_items import live_blocks
from semid.tokens.vocabulary import Vocabulary

__all__ = ["LAYOUTS", "SplitFiles", "write_split"]

LAYOUTS = ("jsonl", "lcrec", "minionerec", "recbole")
PARTS = ("train", "valid", "test")
NUMBER = re.compile(r"0|[1-9]\d{0,17}")
BLANK = re.compile(r"\s")


@dataclass(frozen=True)
class SplitFiles:
    """What `write_split` wrote."""

    folder: Path
    counts: dict[str, int]  # part -> rows
    layouts: tuple[str, ...]
    notes: tuple[str, ...]  # what was left out and why, one sentence each

    def summary(self) -> list[str]:
        """Return lines for people."""
        rows = ", ".join(f"{self.counts.get(part, 0):,} {part}" for part in PARTS)
        return [f"{rows} rows as {', '.join(self.layouts)}", *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return {
            "folder": str(self.folder), "counts": self.counts, "layouts": list(self.layouts), "notes": list(self.notes)
        }  # fmt: skip


class Row(NamedTuple):
    """One item of a user, and the latest items before it."""

    part: str
    user: str
    items: list[str]  # oldest first, the item in question last
    times: list[float]  # of the same items; [] if the interactions have none


@dataclass(frozen=True, eq=False)
class _Source:
    """What rows are made of."""

    log: Interactions
    ends: list[list[int]]  # where training and validation end in each history
    max_history: int
    titles: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)  # item id -> ID in LC-Rec's tokens

    def rows(self) -> Iterator[Row]:
        for user, (name, items) in enumerate(track(self.log, "rows", total=len(self.log), unit="user")):
            train_end, valid_end = self.ends[user]
            start = int(self.log.offsets[user])
            times = [] if self.log.times is None else self.log.times[start : start + len(items)].tolist()
            for place in range(1, len(items)):
                first = max(0, place - self.max_history)
                part = PARTS[(place >= train_end) + (place >= valid_end)]
                yield Row(part, name, items[first : place + 1], times[first : place + 1])


def write_split(
    interactions: object,
    output: str | Path,
    *,
    split: str = "leave-one-out",
    cuts: tuple[float, float] = (0.8, 0.9),
    layouts: Sequence[str] | None = None,
    name: str = "data",
    titles: Mapping[str, str] | None = None,
    ids: SemanticIDTokenizer | None = None,
    max_history: int = 20,
) -> SplitFiles:
    """Split interactions once, and write the parts for several trainers.

    Parameters
    ----------
    interactions : source of `read_interactions`
        All interactions.
    output : path
        The folder to make.
    split, cuts
        What is held out, as in `semid.data.splits.split_ends`.
    layouts : sequence of {"jsonl", "lcrec", "minionerec", "recbole"}, optional
        Which files to write. Default: all that can hold the split.
    name : str
        Name of the data set in the names of files. Default: data.
    titles : mapping of item id to str, optional
        Titles for MiniOneRec. Default: none.
    ids : SemanticIDTokenizer, optional
        IDs for MiniOneRec, in the tokens of `semid export --to lcrec`. Default: none.
    max_history : int
        Items before the one in question, in rows of MiniOneRec and RecBole. Default: 20.

    Raises
    ------
    ConfigError
        An unknown split or layout, or a layout that cannot hold this split or these ids.
    InputError
        The interactions are wrong, hold out nothing, or have an item without an ID in `ids`.
    OutputExistsError
        The folder is not empty.

    >>> import tempfile
    >>> histories = [{"user": "u", "items": ["a", "b", "c", "d"]}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = write_split(histories, f"{folder}/out", name="toy")
    ...     done.counts, (done.folder / "recbole/toy/toy.test.inter").read_text().splitlines()[1]
    ({'train': 1, 'valid': 1, 'test': 1}, 'u\\ta b c\\td')
    """
    output = Path(output)
    for one in layouts or ():
        check_choice("to", one, LAYOUTS)
    if max_history < 1:
        raise ConfigError(f"max_history={max_history} should be 1 or more.")
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise ConfigError(f"name={name!r} should be letters, digits and _.- only: files are called by it.")
    check_folder(output)
    _check_empty(output, False)
    log = read_interactions(interactions)
    ends = split_ends(log, split, cuts).tolist()
    unfit = _unfit(log, split)
    for layout, reason in unfit.items():
        if layout in (layouts or ()):
            raise ConfigError(f"to={layout!r}: {reason}. Leave it out.")
    chosen = tuple(one for one in LAYOUTS if (layouts is None and one not in unfit) or one in (layouts or ()))
    notes = [f"{layout} is left out: {reason}." for layout, reason in unfit.items() if layouts is None]
    source = _Source(log, ends, max_history, titles or {}, {} if ids is None else _tokens(ids, log))
    with staged_folder(output, False, check=_check_empty) as draft:
        counts = _write_rows(draft, source, chosen, name)
        if not counts["test"]:
            raise InputError(f"{log.source}: no user has a test interaction under --split {split}.")
        if "jsonl" in chosen:
            _write_jsonl(draft, source)
        if "lcrec" in chosen:
            notes += _write_lcrec(draft / f"{name}.inter.json", log)
    return SplitFiles(output, {part: counts[part] for part in PARTS}, chosen, tuple(notes))


def _check_empty(output: Path, _force: bool) -> None:
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise OutputExistsError(f"{output}: exists and is not empty. Choose another folder, or remove it.")


def _unfit(log: Interactions, split: str) -> dict[str, str]:
    """Return the layouts that cannot hold this split of these interactions, with the reason."""
    unfit = {}
    if split != "leave-one-out":
        unfit["lcrec"] = "LC-Rec always holds out the last two items of each user"
    blank = next((one for one in (*log.item_ids, *log.users) if BLANK.search(one)), None)
    if blank is not None:
        unfit["recbole"] = f"its lists are separated by blanks, and {blank!r} has one"
    return unfit


def _tokens(ids: SemanticIDTokenizer, log: Interactions) -> dict[str, str]:
    """Return the ID of each live item in LC-Rec's tokens; InputError if an item of the log has none."""
    vocabulary, found = Vocabulary(ids.sizes, "lcrec"), dict[str, str]()
    for items in live_blocks(ids):
        found.update(zip(items.item_ids, vocabulary.texts(items.codes), strict=True))
    missing = [item_id for item_id in log.item_ids if item_id not in found]
    if missing:
        raise InputError(
            f"{log.source}: {plural(len(missing), 'item')} without a live ID in the artifact, such as {missing[0]!r}. "
            "Add them with semid add, or leave out --ids."
        )
    return found


def _write_rows(folder: Path, source: _Source, layouts: Sequence[str], name: str) -> Counter[str]:
    """Write the rows of MiniOneRec and RecBole, and return how many each part has."""
    counts, writers = Counter[str](), list[Callable[[Row], object]]()
    with ExitStack() as stack:
        if "minionerec" in layouts:
            paths = {part: folder / "minionerec" / part / f"{name}.csv" for part in PARTS}
            writers.append(_MiniOneRec(source, _opened(stack, paths)).write)
        if "recbole" in layouts:
            paths = {part: folder / "recbole" / name / f"{name}.{part}.inter" for part in PARTS}
            writers.append(_RecBole(_opened(stack, paths)).write)
        for row in source.rows():
            counts[row.part] += 1
            for write in writers:
                write(row)
    return counts


def _opened(stack: ExitStack, paths: Mapping[str, Path]) -> dict[str, IO[str]]:
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    return {part: stack.enter_context(path.open("x", encoding="utf-8", newline="")) for part, path in paths.items()}


class _MiniOneRec:
    """Writes rows of MiniOneRec's tables. Its lists are Python's; ids that are all numbers are written as numbers."""

    def __init__(self, source: _Source, files: Mapping[str, IO[str]]) -> None:
        self.source = source
        self.writers = {part: csv.writer(file, lineterminator="\n") for part, file in files.items()}
        self.as_number = all(map(NUMBER.fullmatch, source.log.item_ids))
        columns = ["user_id", "item_asins", "item_asin", "history_item_id", "item_id"]
        columns += ["history_item_title", "item_title"]
        columns += ["history_timestamp", "timestamp"] if source.log.times is not None else []
        columns += ["history_item_sid", "item_sid"] if source.tokens else []
        for writer in self.writers.values():
            writer.writerow(columns)

    def write(self, row: Row) -> None:
        named = [int(item) for item in row.items] if self.as_number else row.items
        titles = [self.source.titles.get(item, "") for item in row.items]
        lists: list[Sequence[object]] = [row.items, named, titles]
        if self.source.log.times is not None:
            lists.append([int(time) if time.is_integer() else time for time in row.times])
        if self.source.tokens:
            lists.append([self.source.tokens[item] for item in row.items])
        cells = [cell for one in lists for cell in (list(one[:-1]), one[-1])]
        self.writers[row.part].writerow([row.user, *cells])


class _RecBole:
    """Writes rows of RecBole's atomic files."""

    def __init__(self, files: Mapping[str, IO[str]]) -> None:
        self.files = files
        for file in files.values():
            file.write("user_id:token\titem_id_list:token_seq\titem_id:token\n")

    def write(self, row: Row) -> None:
        *history, item = row.items
        self.files[row.part].write(f"{row.user}\t{' '.join(history)}\t{item}\n")


def _write_jsonl(folder: Path, source: _Source) -> None:
    """Write the parts for everybody else, with whole histories."""
    with ExitStack() as stack:
        files = _opened(stack, {part: folder / f"{part}.jsonl" for part in ("histories", *PARTS)})
        for user, (name, items) in enumerate(source.log):
            train_end, valid_end = source.ends[user]
            whole: dict[str, object] = {"user": name, "items": items}
            if source.log.times is not None:
                start = int(source.log.offsets[user])
                whole["times"] = source.log.times[start : start + len(items)].tolist()
            whole |= {"n_valid": valid_end - train_end, "n_test": len(items) - valid_end}
            files["histories"].write(_line(whole))
            if train_end:
                files["train"].write(_line({"user": name, "items": items[:train_end]}))
            for place in range(max(train_end, 1), len(items)):
                part = "valid" if place < valid_end else "test"
                files[part].write(_line({"user": name, "history": items[:place], "item": items[place]}))


def _line(record: Mapping[str, object]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _write_lcrec(path: Path, log: Interactions) -> list[str]:
    """Write {user: items} of users with at least three items, and return notes on the others."""
    kept = {user: items for user, items in log if len(items) >= 3}
    path.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    if short := len(log) - len(kept):
        return [f"lcrec is without {plural(short, 'user')} of fewer than three items: nothing of theirs is held out."]
    return []
