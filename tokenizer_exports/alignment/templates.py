"""Templates: the wording of alignment records, read from a TOML or JSON file that users can edit.

    [next-item]
    templates = [{ prompt = "After {history}, what is next?", completion = "{item}" }]

A task can have many templates; a record fits those whose placeholders it can fill. Mistakes in a file are found when it
is read: an unknown placeholder, an answer in its own prompt, a task without templates. The package's own file is
`semid/templates/alignment.toml`.
"""

from __future__ import annotations

import hashlib
import json
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from semid.errors import ConfigError
from semid.tokenizer_exports.alignment.config import TASKS

__all__ = ["SHIPPED", "Template", "Templates", "Values", "read_templates"]

SHIPPED = files("semid") / "templates" / "alignment.toml"

# Task -> placeholders allowed in its prompts and in its completions.
PLACEHOLDERS: dict[str, tuple[set[str], set[str]]] = {
    "next-item": ({"history", "user"}, {"item"}),
    "text-to-id": ({"title", "description"}, {"item"}),
    "id-to-text": ({"item", "title"}, {"title", "description"}),
    "fusion": ({"history", "titles", "user"}, {"item", "title", "description"}),
    "search": ({"query", "history", "titles", "user"}, {"item"}),
    "preference": ({"history", "titles", "user"}, {"preference"}),
    "negative": ({"history", "user", "options_one_wrong", "options_one_right"}, {"wrong", "item"}),
}
NEEDED = {"id-to-text": "item", "search": "query"}  # in every prompt of the task
ANSWERS = {"options_one_wrong": "wrong", "options_one_right": "item"}  # options -> the answer to them
SETTINGS = {"system": None, "between-items": ", ", "between-titles": "; "}
JOINED = {"titles": "between-titles"}  # other lists are joined by between-items

Values = Mapping[str, str | Sequence[str]]  # placeholder -> its value; "" or [] for nothing
Pieces = tuple[tuple[str, str | None], ...]  # literal text and the placeholder after it


@dataclass(frozen=True)
class Template:
    """One way to ask and answer."""

    prompt: Pieces
    completion: Pieces
    needs: frozenset[str]  # placeholders of both


@dataclass(frozen=True)
class Templates:
    """All templates of a file. Made by `read_templates`."""

    source: str  # name of the file in messages
    sha256: str  # of its bytes
    tasks: dict[str, tuple[Template, ...]]
    system: str | None
    between: dict[str, str]  # placeholder of a list -> separator of its entries
    _fitting: dict[tuple[str, frozenset[str]], tuple[Template, ...]] = field(default_factory=dict, repr=False)

    def of(self, task: str) -> tuple[Template, ...]:
        """Return the templates of a task. ConfigError if the file has none."""
        if task not in self.tasks:
            rest = ",".join(name for name in TASKS if name in self.tasks)
            fix = f"Add a table [{task}], or leave it out: --tasks {rest}"
            raise ConfigError(f"{self.source}: no templates for the task {task}. {fix}")
        return self.tasks[task]

    def fitting(self, task: str, values: Values) -> tuple[Template, ...]:
        """Return the templates of a task whose placeholders the values fill; possibly none."""
        there = frozenset(name for name, value in values.items() if value)
        found = self._fitting.get((task, there))
        if found is None:
            found = tuple(template for template in self.of(task) if template.needs <= there)
            self._fitting[task, there] = found
        return found

    def render(self, template: Template, values: Values) -> tuple[str, str]:
        """Return the prompt and the completion."""
        return self._filled(template.prompt, values), self._filled(template.completion, values)

    def _filled(self, pieces: Pieces, values: Values) -> str:
        text = ""
        for literal, name in pieces:
            text += literal
            if name is not None:
                value = values[name]
                text += value if isinstance(value, str) else self.between[name].join(value)
        return text


def read_templates(path: str | Path | None = None) -> Templates:
    """Read a file of templates.

    Parameters
    ----------
    path : str or Path, optional
        A .toml or .json file. By default the package's own.

    Raises
    ------
    ConfigError
        The file cannot be read; an unknown task, setting or placeholder; an answer in its own prompt. Lists all
        mistakes, with the task and the number of the template.
    """
    source = SHIPPED if path is None else Path(path)
    name = "templates" if path is None else str(path)
    try:
        raw = source.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}. Check the path.") from None
    content = _parsed(name, raw)
    settings = {key: content.pop(key, default) for key, default in SETTINGS.items()}
    problems = [
        f"{key} should be a text" for key, value in settings.items() if not isinstance(value, str | type(SETTINGS[key]))
    ]
    tasks = {}
    for task, table in content.items():
        if task not in TASKS:
            problems.append(f"{task!r} is no task or setting.{_near(task, (*TASKS, *SETTINGS))}")
            continue
        listed = table.get("templates") if isinstance(table, dict) else None
        if not isinstance(listed, list) or not listed or set(table) != {"templates"}:
            problems.append(f"[{task}] should hold templates = [...], at least one, and nothing else")
            continue
        read = (_template(task, number, one, problems) for number, one in enumerate(listed, 1))
        tasks[task] = tuple(template for template in read if template is not None)
    if problems:
        raise ConfigError(
            "\n".join(f"{name}: {problem}{'' if problem[-1] == '?' else '.'}" for problem in problems[:10])
        )
    lists = ("history", "titles", "options_one_wrong", "options_one_right")
    between = {name: settings[JOINED.get(name, "between-items")] for name in lists}
    return Templates(name, hashlib.sha256(raw).hexdigest(), tasks, settings["system"], between)


def _parsed(name: str, raw: bytes) -> dict[str, Any]:
    kind = "JSON" if name.endswith(".json") else "TOML"
    try:
        content = json.loads(raw) if kind == "JSON" else tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: is not {kind}: {error}. Start from: semid align --show-templates") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: should be a {kind} table of tasks. Start from: semid align --show-templates")
    return content


def _template(task: str, number: int, given: object, problems: list[str]) -> Template | None:
    """Return one template, or None; its mistakes go into `problems`."""
    where = f"[{task}] template {number}"
    texts = given if isinstance(given, dict) else {}
    if set(texts) != {"prompt", "completion"} or not all(isinstance(text, str) for text in texts.values()):
        problems.append(f'{where} should be {{ prompt = "...", completion = "..." }}')
        return None
    parts = {}
    for part, allowed in zip(("prompt", "completion"), PLACEHOLDERS[task], strict=True):
        try:
            parts[part] = _pieces(texts[part])
        except ValueError as error:
            problems.append(f"{where}: {part}: {error}; write a brace that is no placeholder twice")
            return None
        names = _names(parts[part])
        unknown = [
            f"{where}: {part} holds {{{name}}}, which {task} does not have there.{_near(name, allowed)}"
            for name in sorted(names - allowed)
        ]
        problems += unknown
        if unknown:
            return None
        if not names:
            problems.append(f"{where}: {part} should hold one of {_braced(allowed)}")
    asked, answered = _names(parts["prompt"]), _names(parts["completion"])
    problems += [f"{where}: {{{name}}} is the answer, and stands in the prompt" for name in sorted(asked & answered)]
    if task in NEEDED and NEEDED[task] not in asked:
        problems.append(f"{where}: prompt should hold {{{NEEDED[task]}}}")
    if task == "negative":
        problems += _unpaired(where, asked, answered)
    return Template(parts["prompt"], parts["completion"], frozenset(asked | answered))


def _unpaired(where: str, asked: set[str], answered: set[str]) -> list[str]:
    """Return the mistake of a prompt without exactly one list of options, or with the answer to another."""
    options = [name for name in ANSWERS if name in asked]
    if len(options) != 1:
        return [f"{where}: prompt should hold one of {_braced(ANSWERS)}"]
    answer = ANSWERS[options[0]]
    return [] if answered == {answer} else [f"{where}: the answer to {{{options[0]}}} is {{{answer}}}"]


def _pieces(text: str) -> Pieces:
    """Cut a text into literals and placeholders. ValueError for a lone brace, an empty name, a conversion or format."""
    pieces = []
    for literal, name, form, conversion in string.Formatter().parse(text):
        if name is not None and (not name or form or conversion):
            raise ValueError(f"{{{name}}} should be a name alone")
        pieces.append((literal, name))
    return tuple(pieces)


def _names(pieces: Pieces) -> set[str]:
    return {name for _, name in pieces if name is not None}


def _braced(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(known), 1)
    return f" Did you mean {near[0]}?" if near else f" There are: {', '.join(sorted(known))}"
