"""`write_alignment`: training data that teaches a language model what semantic IDs mean.

    histories, texts -> cases of each task -> worded by templates -> JSON lines, train, validation and test

What the tasks are: `tasks.py`. What is held out: `split.py`. Wording: `templates.py`.
The output folder appears whole or not at all; the same input and seed give the same bytes. Memory holds the histories
as numbers, the catalog's texts packed, and one user or item at a time, however much is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from semid._version import __version__
from semid.artifact.atomic import check_folder
from semid.artifact.staging import staging
from semid.data.interactions import Interactions, read_interactions
from semid.data.splits import cut_by_time, leave_one_out, own_split
from semid.errors import ConfigError, InputError, OutputExistsError
from semid.runtime.keyed_random import chance, share
from semid.runtime.progress import bar
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.alignment.config import SPLITS, TASKS, AlignmentConfig
from semid.tokenizer_exports.alignment.extra_texts import check_given, read_user_tokens
from semid.tokenizer_exports.alignment.files import TaskFiles, as_record, task_files
from semid.tokenizer_exports.alignment.item_texts import ItemTexts
from semid.tokenizer_exports.alignment.split import split_histories
from semid.tokenizer_exports.alignment.tasks import CASES, Case, Material, n_train_cases
from semid.tokenizer_exports.alignment.templates import Template, Templates, read_templates

__all__ = ["Aligned", "write_alignment"]

Say = Callable[[str], object]


@dataclass(frozen=True)
class Aligned:
    """What was written."""

    folder: Path
    counts: dict[str, dict[str, int]]  # task -> part of the split -> records; parts without any are not there
    notes: tuple[str, ...]  # what was left out, and why
    fingerprint: str  # of the artifact

    def lines(self) -> list[str]:
        """For people: a line for each task, then the notes."""
        lines = []
        for task, counts in self.counts.items():
            lines.append(f"{task:<12}" + ", ".join(f"{counts.get(split, 0):,} {split}" for split in SPLITS))
        return [*lines, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "folder": str(self.folder),
            "counts": self.counts,
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }


def write_alignment(
    ids: SemanticIDTokenizer,
    interactions: Any,
    output: str | Path,
    config: AlignmentConfig | None = None,
    *,
    items: Any = None,
    queries: Any = None,
    preferences: Any = None,
    user_tokens: Mapping[str, str] | str | Path | None = None,
    templates: str | Path | None = None,
    id_field: str = "id",
    title_field: str = "title",
    description_field: str | None = None,
    progress: bool = False,
    say: Say = lambda line: None,
    **choices: Any,
) -> Aligned:
    """Write training data for a language model whose vocabulary has the IDs, or will have them.

    Parameters
    ----------
    interactions
        Who met what: as `semid.read_interactions` takes it. Items without a live ID are left out.
    output
        A folder that is not there yet, or empty.
    config : AlignmentConfig, or its fields as keywords
        Tasks, split, format, sizes, seed.
    items
        The catalog, as `semid.read_items` takes it, for titles and descriptions. Without it the artifact's own text
        of an item stands as its title.
    queries, preferences
        Files or records with texts that people wrote: see `extra_texts.py`.
    user_tokens
        User -> the token or tokens that stand for them; a file {user: ["<t>", ...]}; a folder of `semid clusters`.
    templates
        A file of templates, .toml or .json, instead of the one of the package.
    say
        Hears one line per step.

    Raises
    ------
    OutputExistsError
        The folder holds something.
    ConfigError
        A choice or a template that cannot be; a task whose texts are not given.
    InputError
        Wrong interactions, items or texts; a task for which there is no training record.

    >>> import tempfile
    >>> items = [{"id": str(n), "title": f"{color} {thing}"} for n, (color, thing) in enumerate(
    ...     (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
    >>> ids = SemanticIDTokenizer.fit(items, levels=2, codebook_size=4)
    >>> histories = [{"user": "u", "items": ["1", "2", "5", "7", "0"]}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_alignment(ids, histories, f"{folder}/out", tasks="next-item").counts
    {'next-item': {'train': 2, 'validation': 1, 'test': 1}}
    """
    if config is not None and choices:
        raise ConfigError("config and single choices were both given. Put the choices into the config.")
    config = config or AlignmentConfig.from_dict(choices)
    output = Path(output)
    _check_output(output)
    worded = read_templates(templates)
    tokens = read_user_tokens(user_tokens, ids.vocabulary)
    material, tasks, notes = _gathered(
        ids, interactions, config, items, queries, preferences, tokens, (id_field, title_field, description_field)
    )
    for task in tasks:
        worded.of(task)
    n_users, n_met = len(material.histories.users), len(material.histories.rows)
    say(f"read        {n_users:,} users, {n_met:,} interactions with the artifact's items")
    fingerprint, counts = ids.fingerprint, {}
    with staging(output, force=False) as draft:
        for task in tasks:
            counts[task] = _write_task(task, material, worded, draft, progress)
            say(f"wrote       {task}: {counts[task].get('train', 0):,} training records")
        notes += [f"{what}: {n:,} left out." for what, n in sorted(material.left_out.items())]
        done = Aligned(output, counts, tuple(notes), fingerprint)
        with (draft / "README.md").open("x", encoding="utf-8") as card:
            card.write(_card(done, material, worded))
    return done


def _check_output(output: Path) -> None:
    check_folder(output)
    if output.is_dir() and any(output.iterdir()):
        raise OutputExistsError(f"{output}: exists and holds something. Choose another folder, or remove it.")


def _gathered(
    ids: SemanticIDTokenizer,
    interactions: Any,
    config: AlignmentConfig,
    items: Any,
    queries: Any,
    preferences: Any,
    user_tokens: Mapping[str, str],
    fields: tuple[str, str, str | None],
) -> tuple[Material, list[str], list[str]]:
    """Everything read but given texts, the tasks that it allows, and what is to be said about it."""
    lacking = {}
    if items is None and ids.texts is None:
        lacking |= dict.fromkeys(("text-to-id", "id-to-text", "fusion"), "titles: the artifact has no texts (items)")
    if queries is None:
        lacking["search"] = "queries"
    if preferences is None:
        lacking["preference"] = "preferences"
    for task in config.tasks or ():
        if task in lacking:
            raise ConfigError(f"tasks: {task} needs {lacking[task]}. Give the file, or leave the task out.")
    tasks = [task for task in config.tasks or TASKS if task not in lacking]
    notes = [f"{task} is left out: no {lacking[task]}." for task in TASKS if task in lacking and not config.tasks]
    log = read_interactions(interactions)
    histories = split_histories(log, ids.ledger, _ends(log, config))
    if histories.n_unknown:
        notes.append(f"interactions with items without a live ID: {histories.n_unknown:,} left out.")
    if repeats := histories.repeats():
        notes.append(f"earlier interactions with an item that is held out for the same user: {repeats:,} left out.")
    names = dict(zip(("id_field", "title_field", "description_field"), fields, strict=True))
    texts = ItemTexts(ids, items, **names, max_text=config.max_text, markers=config.markers)
    return Material(ids, histories, texts, config, queries, preferences, user_tokens), tasks, notes


def _ends(log: Interactions, config: AlignmentConfig) -> npt.NDArray[np.int64]:
    """Return where training and validation end in each history: int64 [U, 2]."""
    if config.split == "time":
        return cut_by_time(log, config.cuts)
    return own_split(log) if config.split == "own" else leave_one_out(log)


def _write_task(task: str, material: Material, templates: Templates, draft: Path, progress: bool) -> dict[str, int]:
    """All records of a task; how many each part has."""
    cases: Iterator[Case] = CASES[task](material)
    total = n_train_cases(task, material) if progress or material.config.most else None
    if total is not None and material.config.most:
        cases = _sampled(cases, total, material.config.most, chance(material.config.seed, "most", task))
    with task_files(draft / task, material.config.shards) as files:
        with bar(task, total or 0, unit="record", shown=progress) as advance:
            for case in cases:
                if not _write_case(task, case, material.config, templates, files):
                    material.left_out[f"records of {task} that no template fits"] += 1
                if case.split == "train":
                    advance(1)
        counts = {split: files.counts[split] for split in SPLITS if files.counts[split]}
    if task in ("search", "preference"):
        check_given(material.queries if task == "search" else material.preferences, sum(counts.values()))
    elif "train" not in counts:
        raise InputError(
            f"{task}: there is no training record: no history or item has what its templates need. Leave the task out, "
            "or give templates that fit: --templates"
        )
    return counts


def _sampled(cases: Iterator[Case], total: int, most: int, draws: Random) -> Iterator[Case]:
    """`most` of `total` training cases at random, in their order; all of the other parts (Knuth's algorithm S)."""
    left, wanted = total, most
    for case in cases:
        if case.split != "train":
            yield case
            continue
        if draws.random() * left < wanted:
            wanted -= 1
            yield case
        left -= 1


def _write_case(task: str, case: Case, config: AlignmentConfig, templates: Templates, files: TaskFiles) -> bool:
    """The records of a case; False if it is one of training for which no template fits."""
    wordings = _wordings(task, case, config, templates)
    if not wordings and case.split == "train":
        return False
    for template in wordings:
        prompt, completion = templates.render(template, case.values)
        item_id = case.wrong_id if "wrong" in template.needs else case.item_id
        about = {"task": task, "user": case.user, "item_id": item_id}
        files.write(case.split, as_record(config.format, prompt, completion, templates.system) | about)
    return True


def _wordings(task: str, case: Case, config: AlignmentConfig, templates: Templates) -> list[Template]:
    """The templates of a case: several in training, one in the other parts; none if none fits."""
    fitting = templates.fitting(task, case.values)
    if case.reworded:
        asked = _drawn(fitting, config.wordings, config.seed, task, "train", *case.key)
        fitting = tuple(template for template in fitting if template not in asked) or fitting
    count = config.wordings if case.split == "train" else 1
    return _drawn(fitting, count, config.seed, task, case.split, *case.key)


def _drawn(fitting: Sequence[Template], count: int, seed: int, *key: object) -> list[Template]:
    """Up to `count` different templates at random."""
    if count == 1 and fitting:
        return [fitting[int(share(seed, *key) * len(fitting))]]  # without seeding a Random for each record
    return chance(seed, *key).sample(fitting, min(count, len(fitting)))


def _card(done: Aligned, material: Material, templates: Templates) -> str:
    """README.md: what the data are, how they were split, from which artifact."""
    from jinja2 import Environment, PackageLoader

    ledger = material.ids.ledger
    environment = Environment(loader=PackageLoader("semid"), trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("alignment-card.md").render(
        tasks=done.counts,
        splits=SPLITS,
        n_templates={task: len(templates.of(task)) for task in done.counts},
        templates="those of semid" if templates.source == "templates" else Path(templates.source).name,
        templates_sha256=templates.sha256,
        config=material.config.to_dict(),
        notes=done.notes,
        fingerprint=done.fingerprint,
        n_items=ledger.n_live,
        example=material.texts.semantic_ids([0])[0],
        version=__version__,
    )
