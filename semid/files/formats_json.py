"""JSON records: objects line by line, and values that span lines or stand in one array or object.

Values are parsed one at a time, so that a large array takes no more memory than its largest element. Lines of Python
literals, as some data sets have them, are read here too; `ast.literal_eval` runs no code.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from semid.files.arrow import Record
from semid.files.encodings import not_utf8
from semid.files.json_layout import python_literal
from semid.files.problems import Problems, quote
from semid.files.sources import LINE_LIMIT, LineFault, Opened, SourceFault, read_fault

__all__ = ["JsonScanner", "from_array", "from_jsonl", "from_map", "from_objects", "from_python", "stream_fault"]

CHUNK = 1 << 20
BLANKS = " \t\r\n"
DEEP = "the JSON is nested too deeply. Flatten it."
ENDLESS = 16  # characters before the end of what was read, within which a fault may be a cut


def _numbered_lines(file: Opened, problems: Problems) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file from 1. A stream that breaks is a problem of its line."""
    line = 0
    file.limit_lines()
    try:
        for line, raw in enumerate(file.stream, 1):
            yield line, raw
    except (OSError, UnicodeError) as error:
        stream_fault(error, line + 1, problems)


def stream_fault(error: OSError | UnicodeError, line: int, problems: Problems) -> None:
    """Note what broke a stream, which is a fault of the whole source if it cannot be unpacked or read."""
    if isinstance(error, LineFault | UnicodeError):
        problems.refuse(line, read_fault(error))
    else:
        problems.add(None, read_fault(error))


def from_jsonl(file: Opened, problems: Problems) -> Iterator[Record]:
    """Yield the objects of JSON lines."""
    skips, said = problems.skips, ""
    for line, raw in _numbered_lines(file, problems):
        if not raw or raw.isspace():
            continue
        try:
            record = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            said = said or not_utf8(error)  # one message for all lines
            problems.reject(line, said, raw)
        except json.JSONDecodeError as error:
            column = error.colno if error.lineno == 1 else len(error.doc.rstrip()) + 1
            problems.reject(line, f"broken JSON at column {column}: {error.msg}. Write one object per line.", raw)
        except RecursionError:
            problems.reject(line, DEEP, raw)
        except ValueError as error:  # an integer of more than 4300 digits
            problems.reject(line, f"broken JSON: {error}.", raw)
        else:
            if isinstance(record, dict):
                if skips:
                    problems.raw = raw
                yield line, record
            else:
                problems.reject(line, _no_object(record), raw)


def _no_object(value: object) -> str:
    kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a bare value")
    return f"expected an object {{...}}, got {kind}."


def from_python(file: Opened, problems: Problems) -> Iterator[Record]:
    """Yield the dicts of lines such as {u'asin': 'B1', 'price': 9.5}."""
    said = ""
    for line, raw in _numbered_lines(file, problems):
        if not raw or raw.isspace():
            continue
        try:
            record = python_literal(raw.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            said = said or not_utf8(error)
            problems.reject(line, said, raw)
            continue
        if isinstance(record, dict):
            problems.raw = raw
            yield line, record
        else:
            problems.reject(line, "broken Python literal; expected {'name': 'value', ...}.", raw)


# ---- values that span lines


class JsonScanner:
    """JSON text of any length, of which one value is parsed at a time."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.stream = stream
        self.text, self.at, self.ended = "", 0, False
        self.line = 1  # of `at`
        self.blanks = ""  # what stood before `at`
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.json = json.JSONDecoder()

    def next_sign(self) -> str:
        """Move to the next sign that is not blank and return it; "" at the end."""
        self.blanks = ""
        while True:
            while self.at < len(self.text) and self.text[self.at] in BLANKS:
                self.blanks += self.text[self.at]
                self.line += self.text[self.at] == "\n"
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self._read_on()

    def skip(self) -> None:
        """Move behind one sign."""
        self.at += 1

    def skip_element(self) -> str:
        """Move behind an element of an array that cannot be parsed, and return its text; "" if its end is not sure.

        It is where a further object begins on a line of its own, as far from the margin: no object inside does.
        """
        if "\n" not in self.blanks:
            return ""
        following = f",{self.blanks}{{"
        while (end := self.text.find(following, self.at)) < 0:
            if self.ended:
                return ""
            self._read_on()
        broken, self.at = self.text[self.at : end], end
        self.line += broken.count("\n")
        return broken

    def value(self) -> Any:
        """Parse the value that begins here and move behind it. json.JSONDecodeError if there is none."""
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - ENDLESS
                if self.ended or not cut:
                    raise
            else:
                if end < len(self.text) or self.ended:  # else a number may go on
                    self.line += self.text.count("\n", self.at, end)
                    self.at = end
                    return value
            self._read_on()

    def _read_on(self) -> None:
        rest = self.text[self.at :]
        if len(rest) > LINE_LIMIT:
            raise SourceFault(f"has a value of more than {LINE_LIMIT >> 20} MiB, which is no record.")
        data = self.stream.read(max(CHUNK, len(rest)))  # at least doubled, so that parsing again costs little
        self.ended = not data
        self.text, self.at = rest + self.decoder.decode(data, final=self.ended), 0


def _values(file: Opened, problems: Problems, kind: str) -> Iterator[Any]:
    """Yield the values of an array or of objects one after another, or the (key, value) pairs of one object.

    Behind a fault nothing is read, as it is not known where the next value begins; but see `JsonScanner.skip_element`.
    """
    problems.style = "row"
    scanner = JsonScanner(file.stream)
    try:
        if kind != "objects":
            scanner.next_sign()
            scanner.skip()
        end = {"array": "]", "map": "}", "objects": ""}[kind]
        while (sign := scanner.next_sign()) != end:
            if kind == "map":
                key = scanner.value() if sign == '"' else None
                if not isinstance(key, str) or scanner.next_sign() != ":":
                    raise json.JSONDecodeError("expected a name and a colon", scanner.text, scanner.at)
                scanner.skip()
                scanner.next_sign()
                yield key, scanner.value()
            else:
                yield _element(scanner, problems, kind)
            if scanner.next_sign() == ",":
                scanner.skip()
            elif kind != "objects" and scanner.next_sign() != end:
                raise json.JSONDecodeError(f"expected ',' or '{end}'", scanner.text, scanner.at)
        scanner.skip()
        if scanner.next_sign():
            problems.add(None, f"line {scanner.line} has more text behind the end of the JSON. Write one value a file.")
    except json.JSONDecodeError as error:
        line = scanner.line + scanner.text.count("\n", scanner.at, error.pos)
        if scanner.ended and error.pos >= len(scanner.text.rstrip()):
            problems.add(None, f"the JSON ends too early, in line {line}: the file is cut short. Copy it again.")
        else:
            problems.add(None, f"broken JSON in line {line}: {error.msg}.")
    except UnicodeDecodeError as error:
        problems.add(None, f"line {scanner.line}: {not_utf8(error)}")
    except (OSError, UnicodeError) as error:
        problems.add(None, f"line {scanner.line}: {read_fault(error)}")
    except RecursionError:
        problems.add(None, f"line {scanner.line}: {DEEP}")
    except ValueError as error:
        problems.add(None, f"broken JSON in line {scanner.line}: {error}.")


@dataclass
class _Broken:
    """An element of an array that cannot be parsed."""

    text: str
    message: str


def _element(scanner: JsonScanner, problems: Problems, kind: str) -> Any:
    """Return the next value, or where bad rows are skipped, what is wrong with it."""
    blanks = scanner.blanks
    try:
        return scanner.value()
    except json.JSONDecodeError as error:
        scanner.blanks = blanks
        broken = scanner.skip_element() if problems.skips and kind == "array" else ""
        if not broken:
            raise
        return _Broken(broken, f"broken JSON: {error.msg}.")


def from_array(file: Opened, problems: Problems) -> Iterator[Record]:
    """Yield the objects of one array, counted from 1."""
    return _objects(_values(file, problems, "array"), problems)


def from_objects(file: Opened, problems: Problems) -> Iterator[Record]:
    """Yield objects that follow each other, each over any number of lines."""
    return _objects(_values(file, problems, "objects"), problems)


def _objects(values: Iterator[Any], problems: Problems) -> Iterator[Record]:
    for row, value in enumerate(values, 1):
        if isinstance(value, dict):
            problems.raw = value
            yield row, value
        elif isinstance(value, _Broken):
            problems.reject(row, value.message, value.text)
        else:
            problems.reject(row, _no_object(value), value)


def from_map(file: Opened, problems: Problems, key_field: str | None) -> Iterator[Record]:
    """Yield the members of one object as records.

    Parameters
    ----------
    file, problems : Opened, Problems
        What is read, and where mistakes go.
    key_field : str, optional
        The field that the key becomes, in a catalog: `{"7": {"title": "Lamp"}}`. Without it the records are histories
        by user: `{"7": [1, 2]}` or `{"7": {"items": [1, 2]}}`.
    """
    for row, (key, value) in enumerate(_values(file, problems, "map"), 1):
        if isinstance(value, dict):
            name = key_field or "user"
            record = value if name in value else {name: key, **value}
        elif isinstance(value, list) and key_field is None:
            record = {"user": key, "items": value}
        elif isinstance(value, list):
            problems.add(None, f"{quote(key)} has a list: these are histories by user or an index file, not items.")
            return
        else:
            problems.reject(row, f"{quote(key)}: {_no_object(value)}", value)
            continue
        problems.raw = record
        yield row, record
