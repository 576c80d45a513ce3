"""Write alignment data: training records that teach a language model what semantic IDs mean.

    histories, texts -> cases of each task -> wording by templates -> JSON lines for train, validation and test

The tasks are in `tasks.py`, the split in `split.py`, the wording in `templates.py`. The output folder appears whole or
not at all, and the same input and seed give the same bytes. Memory holds the histories as numbers, the catalog's texts
packed, and one user or item at a time, however much is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from semid._version import __version__
from semid.artifact.atomic import check_folder
from semid.artifact.staging import staged_folder
from semid.data.interaction_reader import read_interactions
from semid.data.interactions import Interactions
from semid.data.splits import split_ends
from semid.data.unknown_items import unknown_items
from semid.errors import ConfigError, InputError, OutputExistsError
from semid.runtime.keyed_random import chance, share
from semid.runtime.progress import bar, bars_shown, log_step
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.alignment.config import SPLITS, TASKS, AlignmentConfig
from semid.tokenizer_exports.alignment.extra_texts import check_given, read_user_tokens
from semid.tokenizer_exports.alignment.files import TaskFiles, as_record, task_files
from semid.tokenizer_exports.alignment.item_texts import ItemTexts
from semid.tokenizer_exports.alignment.split import split_histories
from semid.tokenizer_exports.alignment.tasks import CASES, Case, Material, n_train_cases
from semid.tokenizer_exports.alignment.templates import Template, Templates, read_templates

__all__ = ["AlignmentData", "write_alignment"]

logger = logging.getLogger("semid")


@dataclass(frozen=True)
class AlignmentData:
    """What `write_alignment` wrote."""

    folder: Path
    counts: dict[str, dict[str, int]]  # task -> part of the split -> records; without empty parts
    notes: tuple[str, ...]  # what was left out and why, one sentence each
    fingerprint: str  # of the artifact

    def summary(self) -> list[str]:
        """Return lines for people, one per task. The notes were logged."""
        lines = []
        for task, counts in self.counts.items():
            lines.append(f"{task:<12}" + ", ".join(f"{counts.get(split, 0):,} {split}" for split in SPLITS))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return {
            "folder": str(self.folder),
            "counts": self.counts,
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }


def write_alignment(
    ids: SemanticIDTokenizer,
    interactions: object,
    output: str | Path,
    config: AlignmentConfig | None = None,
    *,
    items: object = None,
    queries: object = None,
    preferences: object = None,
    user_tokens: Mapping[str, str] | str | Path | None = None,
    templates: str | Path | None = None,
    id_field: str = "id",
    title_field: str = "title",
    description_field: str | None = None,
    user_field: str | None = None,
    item_field: str | None = None,
    time_field: str | None = None,
    **settings: Any,
) -> AlignmentData:
    """Write training data for a language model whose vocabulary has the IDs, or will have them.

    Parameters
    ----------
    ids : SemanticIDTokenizer
        The artifact.
    interactions : source of `read_interactions`
        The histories. Items without a live ID are left out. A `semid.files.RecordFile` is a path
        together with how to read it.
    output : str or Path
        Folder to write; new or empty.
    config : AlignmentConfig, optional
        Tasks, split, format, sizes, seed. Its fields can be given as keywords instead.
    items : source of `read_items`, optional
        The catalog, for titles and descriptions. By default the artifact's text of an item is its title.
    queries, preferences : path, iterable of dicts, ..., optional
        Texts that people wrote; see `extra_texts.py`.
    user_tokens : dict or path, optional
        User -> tokens as text; a file {user: ["<t>", ...]}; or a folder that `semid clusters` wrote.
    templates : str or Path, optional
        A .toml or .json file of templates. By default the package's own.
    id_field, title_field, description_field : str
        Fields of `items`. By default the description is in `description`, if there is such a field.
    user_field, item_field, time_field : str, optional
        Fields of the interactions, as in `read_interactions`.
    **settings
        Fields of `AlignmentConfig`.

    Returns
    -------
    AlignmentData
        The number of records of each task, and what was left out.

    Raises
    ------
    OutputExistsError
        The folder is not empty.
    ConfigError
        Wrong settings or templates; a task whose texts are not given.
    InputError
        Wrong interactions, items or texts; a task without a training record.

    >>> import tempfile
    >>> items = [{"id": str(n), "title": f"{color} {thing}"} for n, (color, thing) in enumerate(
    ...     (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
    >>> ids = SemanticIDTokenizer.fit(items, levels=2, codebook_size=4)
    >>> histories = [{"user": "u", "items": ["1", "2", "5", "7", "0"]}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_alignment(ids, histories, f"{folder}/out", tasks="next-item").counts
    {'next-item': {'train': 2, 'validation': 1, 'test': 1}}
    """
    if config is not None and settings:
        raise ConfigError(f"config and {min(settings)} were both given. Put {min(settings)} into the config.")
    config = config or AlignmentConfig.from_dict(settings)
    output = Path(output)
    _check_output(output)
    wording = read_templates(templates)
    tokens = read_user_tokens(user_tokens, ids.vocabulary)
    read = partial(read_interactions, interactions, user_field=user_field, item_field=item_field, time_field=time_field)
    material, tasks, notes = _gathered(
        ids, read, config, items, queries, preferences, tokens, (id_field, title_field, description_field)
    )
    for task in tasks:
        wording.of(task)
    n_users, n_met = len(material.histories.users), len(material.histories.rows)
    log_step("read", f"{n_users:,} users, {n_met:,} interactions with the artifact's items")
    fingerprint, counts = ids.fingerprint, dict[str, dict[str, int]]()
    with staged_folder(output, force=False) as draft:
        for task in tasks:
            counts[task] = _write_task(task, material, wording, draft)
            log_step("wrote", f"{task}: {counts[task].get('train', 0):,} training records")
        notes += [f"{what}: {n:,} left out." for what, n in sorted(material.left_out.items())]
        done = AlignmentData(output, counts, tuple(notes), fingerprint)
        for note in notes:
            logger.warning("%s", note)
        with (draft / "README.md").open("x", encoding="utf-8") as card:
            card.write(_card(done, material, wording))
    return done


def _check_output(output: Path) -> None:
    check_folder(output)
    if output.is_dir() and any(output.iterdir()):
        raise OutputExistsError(f"{output}: exists and is not empty. Choose another folder, or remove it.")


def _gathered(
    ids: SemanticIDTokenizer,
    read: Callable[[], Interactions],
    config: AlignmentConfig,
    items: object,
    queries: object,
    preferences: object,
    user_tokens: Mapping[str, str],
    fields: tuple[str, str, str | None],
) -> tuple[Material, list[str], list[str]]:
    """Return everything but queries and preferences, the tasks that the files allow, and notes on what is left out."""
    lacking: dict[str, str] = {}
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
    log = read()
    if line := unknown_items(log, ids.item_ids, kind="artifact"):
        notes.append(f"{line}.")
    histories = split_histories(log, ids.ledger, split_ends(log, config.split, config.cuts))
    if n_retired := histories.n_unknown - int((ids.ledger.find_rows(log.item_ids) < 0)[log.items].sum()):
        notes.append(f"interactions with retired items: {n_retired:,} left out.")
    if repeats := histories.repeats():
        notes.append(f"earlier interactions with an item that is held out for the same user: {repeats:,} left out.")
    id_field, title_field, description_field = fields
    texts = ItemTexts(
        ids,
        items,
        id_field=id_field,
        title_field=title_field,
        description_field=description_field,
        max_text=config.max_text,
        markers=config.markers,
    )
    return Material(ids, histories, texts, config, queries, preferences, user_tokens), tasks, notes


def _write_task(task: str, material: Material, templates: Templates, draft: Path) -> dict[str, int]:
    """Write all records of a task, and return how many each part has."""
    cases, max_records = CASES[task](material), material.config.max_records
    total = n_train_cases(task, material) if max_records or bars_shown() else None
    if total is not None and max_records:
        cases = _sampled(
            cases, total, max_records, chance(material.config.seed, "most", task)
        )  # an old name: same draws
    with task_files(draft / task, material.config.shards) as files:
        with bar(task, total or 0, unit="record") as advance:
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
            f"{task}: there is no training record: no history or item fills its templates. Leave the task out, or give "
            "templates that fit: --templates"
        )
    return counts


def _sampled(cases: Iterator[Case], total: int, count: int, draws: Random) -> Iterator[Case]:
    """Yield `count` of `total` training cases at random, in order (Knuth's algorithm S), and all other cases."""
    left, wanted = total, count
    for case in cases:
        if case.split != "train":
            yield case
            continue
        if draws.random() * left < wanted:
            wanted -= 1
            yield case
        left -= 1


def _write_case(task: str, case: Case, config: AlignmentConfig, templates: Templates, files: TaskFiles) -> bool:
    """Write the records of a case. Return False for a training case that no template fits."""
    chosen = _templates_of(task, case, config, templates)
    if not chosen and case.split == "train":
        return False
    for template in chosen:
        prompt, completion = templates.render(template, case.values)
        item_id = case.wrong_id if "wrong" in template.needs else case.item_id
        about = {"task": task, "user": case.user, "item_id": item_id}
        files.write(case.split, as_record(config.format, prompt, completion, templates.system) | about)
    return True


def _templates_of(task: str, case: Case, config: AlignmentConfig, templates: Templates) -> list[Template]:
    """Draw the templates of a case: several in training, one in the other parts; none if none fits."""
    fitting = templates.fitting(task, case.values)
    if case.reworded:
        asked = _drawn(fitting, config.templates_per_record, config.seed, task, "train", *case.key)
        fitting = tuple(template for template in fitting if template not in asked) or fitting
    count = config.templates_per_record if case.split == "train" else 1
    return _drawn(fitting, count, config.seed, task, case.split, *case.key)


def _drawn(fitting: Sequence[Template], count: int, seed: int, *key: object) -> list[Template]:
    """Draw up to `count` different templates."""
    if count == 1 and fitting:
        return [fitting[int(share(seed, *key) * len(fitting))]]  # without seeding a Random for each record
    return chance(seed, *key).sample(fitting, min(count, len(fitting)))


def _card(done: AlignmentData, material: Material, templates: Templates) -> str:
    """Return README.md, the dataset card: what the data are, how they were split, and from which artifact."""
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
