"""The options that say how files of records are read: the same ones on every command that reads such files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from semid.data.interaction_reader import FieldNames
    from semid.files.reading import RecordFile

__all__ = ["Files", "reading_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

ANY = ""  # a value for each of several files
OF_CELLS = ("delimiter", "columns")
WITHOUT_CELLS = (".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".arrow", ".feather")
BY_FILE = ("delimiter", "columns", "encoding", "duplicates")  # a command of several files takes one for each


def reading_options(
    *kinds: str, text: str | None = "detected", duplicates: bool = True
) -> Callable[[Command], Command]:
    """Add the options for reading to a command; `Files.of` takes all but `text` out of its choices.

    Parameters
    ----------
    *kinds : {"items", "interactions", "queries", "preferences", "index"}
        The files of records that the command reads. With several, a value may be for one of them: `items=latin-1`.
        Without that, a delimiter and columns are for those of the files that have cells by their names.
    text : str or None
        The default of --text in words; None for a command that needs no text of the items.
    duplicates : bool
        Whether the command notices that an item comes twice.
    """
    options = []
    if "items" in kinds:
        options.append(click.option("--id-field", help="Field of the items with the item's id. Default: id."))
        if text is not None:
            options.append(click.option("--text", help=f"Comma-separated text fields of the items. Default: {text}."))
    if "interactions" in kinds:
        for role, more in [("user", ""), ("item", ""), ("time", "; '' keeps the order of the lines")]:
            wording = f"Field of the interactions with the {role}{more}. Default: found by its name."
            options.append(click.option(f"--{role}-field", help=wording))
    wordings = {
        "delimiter": "Separator of cells: tab, comma, semicolon, pipe, space, '::', ... Default: detected.",
        "columns": "Comma-separated names of the columns, for a file without a header. Default: the header.",
        "encoding": "Encoding, such as latin-1. Default: by byte order mark, else utf-8.",
        "duplicates": "Rows that repeat an id: error (default), or keep the first or the last.",
    }
    for name in BY_FILE if duplicates else BY_FILE[:-1]:
        of_one = f" For one file: {kinds[0]}=VALUE." if len(kinds) > 1 else ""
        metavar = "[error|first|last]" if name == "duplicates" else name.upper()
        options.append(
            click.option(
                f"--{name}", multiple=True, callback=_by_file(kinds), metavar=metavar, help=wordings[name] + of_one
            )
        )
    wording = "Skip rows that cannot be read, and write them to FILE.bad-rows.txt. Default: stop."
    options.append(click.option("--skip-bad-rows", is_flag=True, help=wording))

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _by_file(kinds: Sequence[str]) -> Callable[[click.Context, click.Parameter, Sequence[str]], dict[str, str]]:
    """Return the callback that turns values, some of them `items=VALUE`, into kind of file -> value."""

    def parse(_ctx: click.Context, _option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
        found = dict[str, str]()
        for value in values:
            kind, sign, rest = value.partition("=")
            if len(kinds) == 1:
                found[kinds[0]] = value
            elif sign and kind in kinds:
                found[kind] = rest
            else:
                found[ANY] = value
        return found

    return parse


@dataclass(frozen=True)
class Files:
    """What the options for reading say."""

    id_field: str
    interaction_fields: FieldNames  # keywords of `read_interactions`
    by_file: dict[str, dict[str, str]]  # option -> kind of file, or ANY -> value
    skip_bad_rows: bool
    bad_rows: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> the file whose bad rows go there

    @classmethod
    def of(cls, choices: dict[str, Any]) -> Files:
        """Take the options out of the choices of a command."""
        id_field = choices.pop("id_field", None) or "id"
        fields: FieldNames = {
            "user_field": choices.pop("user_field", None),
            "item_field": choices.pop("item_field", None),
            "time_field": choices.pop("time_field", None),
        }
        by_file = {name: choices.pop(name, None) or {} for name in BY_FILE}
        return cls(id_field, fields, by_file, choices.pop("skip_bad_rows", False))

    def open(self, kind: str, path: str | os.PathLike[str]) -> RecordFile:
        """Return a file of a kind with how to read it."""
        from semid.files.reading import Reading, RecordFile

        how: dict[str, Any] = {}
        in_cells = not os.fsdecode(path).lower().endswith(WITHOUT_CELLS)
        for name, found in self.by_file.items():
            if kind in found or (ANY in found and (in_cells or name not in OF_CELLS)):
                how[name] = found.get(kind, found.get(ANY))
        if self.skip_bad_rows:
            name = os.path.basename(os.fsdecode(path).rstrip("/"))
            name = "stdin" if name == "-" else name
            other = self.bad_rows.setdefault(name, (kind, os.fsdecode(path))) != (kind, os.fsdecode(path))
            how["skip_bad_rows"] = f"{name}.{kind}.bad-rows.txt" if other else f"{name}.bad-rows.txt"
        return RecordFile(path, Reading(**how))

    def open_interactions(self, path: str | os.PathLike[str] | None) -> RecordFile | None:
        """Return the file that --interactions names; UsageError for one of its fields without it."""
        if path is not None:
            return self.open("interactions", path)
        for name, given in self.interaction_fields.items():
            if given is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} goes with --interactions, which is missing.")
        return None
