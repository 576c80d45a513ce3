"""Interactions record by record: histories, logs, and rows with a history before the item, in any order of fields.

This is the reference that `interaction_columns` must equal. Every mistake is named with its line.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semid.data.history_cells import codes_in_cell, list_in_cell
from semid.data.interaction_builder import HELD_OUT, NO_TIME, ROLES, InteractionBuilder, counts_fault, option_of
from semid.data.interaction_fields import Choice, Fields, find_fields
from semid.data.paths import find_field, roots
from semid.data.values import as_microseconds, as_number, id_fault, id_string
from semid.files.field_names import USUAL, Role, is_history, plain_name
from semid.files.problems import Problems, name_list, quote

__all__ = ["RecordReader"]


class RecordReader(InteractionBuilder):
    """Turns records into the arrays of an `InteractionBuilder`."""

    def __init__(self, problems: Problems, names: tuple[str | None, str | None, str | None]) -> None:
        super().__init__(problems, names)
        self.keys: tuple[str, ...] | None = None  # the fields of the last record ...
        self.fields = Fields(Choice(), Choice(), Choice(), None, None)  # ... what they are ...
        self.counted = False  # ... whether there is a held-out count ...
        self.is_list = False  # ... whether the items are a list, by the name of their field ...
        self.refused = False  # ... whether it was said that there is no user or item among them ...
        self.is_new = False  # ... and whether they are still to be noted
        self.paths = [name for name in names if name and roots(name)]  # names that may lead into objects
        self.user_lines = array("q")  # where each user came first
        self.dated: bool | None = None  # whether the times of histories are dates; None: none seen

    def add(self, line: int, record: dict[str, Any]) -> None:
        """Add the record of a line, or note what is wrong with it."""
        if self.paths:
            found = {name: find_field(record, name) for name in self.paths}
            record = {**record, **{name: value for name, (has, value) in found.items() if has}}
        keys = tuple(record)
        if keys != self.keys:
            self.keys, self.fields, self.refused = keys, find_fields(keys, self.names), False
            self.counted, self.is_new = not record.keys().isdisjoint(HELD_OUT), True
            self.is_list = self.fields.item.name is not None and is_history(self.fields.item.name)
        user_field, item_field = self.fields.user.name, self.fields.item.name
        if user_field is None or item_field is None:
            self._missing(line, record, "user" if user_field is None else "item")
            return
        user = id_string(record[user_field])
        if user is None:
            self.problems.add(line, f"{user_field} {id_fault(record[user_field])}")
            return
        met = record[item_field]
        if self.is_list and isinstance(met, str):
            met = codes_in_cell(met) if plain_name(item_field) == "items" else list_in_cell(met)
        if isinstance(met, list | tuple | np.ndarray):
            self.take("user", self.fields.user)
            self.take("item", self.fields.item)
            self._add_history(line, user, item_field, met, record)
        elif self.is_list:
            what = f"{item_field} is not a list. Write item ids, oldest first, as [7, 8]; if it is a single item"
            self.problems.add(line, f"{what}, rename the column to item.")
        elif self.fields.history is not None:
            self._add_target(line, user, item_field, self.fields.history, record)
        else:
            self._add_single(line, user, item_field, record)

    def _missing(self, line: int, record: dict[str, Any], role: Role) -> None:
        """Note that there is no user or item; once for records with the same fields that follow each other."""
        if self.refused:
            return
        self.refused = True
        name, among = self.names[ROLES.index(role)], getattr(self.fields, role).among
        what = f"missing field {quote(name)}" if name else f"no {role} field, such as {', '.join(USUAL[role])}"
        if among:
            what = f"the {role} could be in {name_list(among)}"
        have = f"have: {name_list(record)}" if record else "the record is empty"
        self.problems.add(line, f"{what} ({have}). Name it with {option_of(role)}{_example(record, role)}.")

    def _add_history(
        self, line: int, user: str, item_field: str, met: Sequence[object] | np.ndarray, record: dict[str, Any]
    ) -> None:
        self.first.setdefault("a whole history", line)
        item_ids = []
        for position, item in enumerate(met):
            item_id = id_string(item)
            if item_id is None:
                fault = f"{item_field}[{position}] {id_fault(item)}"
                if isinstance(item, dict) and item:
                    fault += f" Name its field with {option_of('item')} {item_field}.{_id_inside(item)}."
                self.problems.add(line, fault)
                return
            item_ids.append(item_id)
        again = user in self.users
        if again and not self._replaces(line, user):
            return
        number = self._number(user, line, record, again)
        for item_id in item_ids:
            self.append(number, item_id)
        self._add_time_list(line, record, len(met))

    def _replaces(self, line: int, user: str) -> bool:
        """Return whether a further history of a user replaces the earlier one; note it if there may be only one."""
        which, number = self.problems.reading.duplicates, self.users[user]
        if which == "error":
            first = self.problems.first_at(self.user_lines[number])
            what = f"user {quote(user)} again (first at {first}). Join the histories, or use --duplicates last."
            self.problems.add(line, what)
            return False
        self.n_repeated += 1
        if which == "last":
            self.begins[number] = len(self.user_of)
        return which == "last"

    def _add_time_list(self, line: int, record: dict[str, Any], count: int) -> None:
        """Keep the times of a history, or note why it has none, which matters to a split by time alone."""
        given = None if self.fields.time_list is None else record[self.fields.time_list]
        moments, dated = _moments(given, count)
        if moments is None:
            self.note(self.no_times, line, NO_TIME)
        elif any(later < earlier for earlier, later in zip(moments, moments[1:], strict=False)):
            self.note(self.no_times, line, "the times of the history fall. Write items and times oldest first.")
        elif moments and self.dated not in (None, dated):
            self.note(self.no_times, line, "numbers as times in some histories, dates in others. Write all alike.")
        else:
            self.dated = dated if moments else self.dated
            for moment in moments:
                self._append_time(moment)

    def _add_single(self, line: int, user: str, item_field: str, record: dict[str, Any]) -> None:
        self.first.setdefault("a single interaction", line)
        time_field = self.fields.time.name
        item_id = id_string(record[item_field])
        if item_id is None:
            self.problems.add(line, f"{item_field} {id_fault(record[item_field])}")
        elif time_field is None and self.names[2]:
            what = f"missing field {quote(self.names[2])} (have: {name_list(record)})"
            self.problems.add(line, f"{what}, named as {option_of('time')}.")
        elif self.fields.time.among:
            if not self.refused:
                which = name_list(self.fields.time.among)
                self.problems.add(line, f"the time could be in {which}. Name it with {option_of('time')}.")
            self.refused = True
        elif time_field is None:
            self.first.setdefault("no time", line)
            self.note(self.no_times, line, NO_TIME)
            self._keep_single(line, user, item_id, record)
        elif self._add_time(line, time_field, record[time_field]):
            self._keep_single(line, user, item_id, record)

    def _keep_single(self, line: int, user: str, item_id: str, record: dict[str, Any]) -> None:
        self.append(self._number(user, line, record), item_id)
        if self.is_new and len(self.columns) < 100:
            self.is_new = False
            self.columns.update(dict.fromkeys(record))
            for role in ROLES:
                self.take(role, getattr(self.fields, role))

    def _add_target(self, line: int, user: str, item_field: str, history_field: str, record: dict[str, Any]) -> None:
        """Keep a row with the history before its item."""
        self.first.setdefault("a history before the item", line)
        before = list_in_cell(record[history_field])
        if before is None:
            self.problems.add(line, f"{history_field} is not a list. Write a list of item ids, oldest first.")
            return
        met = [*before, record[item_field]]
        item_ids = [id_string(item) for item in met]
        for position, (item, item_id) in enumerate(zip(met, item_ids, strict=True)):
            if item_id is None:
                where = item_field if position == len(before) else f"{history_field}[{position}]"
                self.problems.add(line, f"{where} {id_fault(item)}")
                return
        self._number(user, line, record)
        self.take("user", self.fields.user)
        self.take("item", Choice(f"{history_field} and {item_field}", 2))
        self.note(self.no_times, line, NO_TIME)
        if not self.targets.add(user, [item_id for item_id in item_ids if item_id is not None]):
            first = self.problems.first_at(self.user_lines[self.users[user]])
            self.problems.add(
                line,
                f"{history_field} does not continue the other rows of user {quote(user)} (first at {first}). Sort the "
                f"rows of a user oldest first, or read each row as one interaction with {option_of('item')}.",
            )

    def _add_time(self, line: int, time_field: str, value: object) -> bool:
        moment, kind = as_number(value), "a number as time"
        if moment is None:
            moment, kind = as_microseconds(value), "a date as time"
        if moment is None and self.short_dates.add(line, value):
            moment, kind = 0, "a date with the year last"  # in its place until all are known
        if moment is None:
            shown = quote(value) if isinstance(value, str) else _shown(value)
            fix = "" if self.names[2] else f" Name another field with {option_of('time')}."
            self.problems.add(line, f"{time_field} {shown} is no time; expected a number or an ISO date.{fix}")
            return False
        self.first.setdefault(kind, line)
        self._append_time(moment)
        return True

    def _append_time(self, moment: float) -> None:
        try:
            self.times.append(moment)  # type: ignore[arg-type]  # a whole number suits both kinds of array
        except (TypeError, OverflowError):  # a fraction, or beyond int64
            self.times = array("d", self.times)
            self.times.append(moment)

    def _number(self, user: str, line: int, record: dict[str, Any], again: bool = False) -> int:
        """Return the user's number, and keep their held-out counts; `again` if they replace earlier ones."""
        number = self.users.setdefault(user, len(self.users))
        is_new = number == len(self.user_lines)
        if is_new:
            self.user_lines.append(line)
        if is_new or self.counted or again:
            self._keep_counts(number, line, [record.get(name) for name in HELD_OUT], again)
        return number

    def _keep_counts(self, user: int, line: int, counts: list[Any], again: bool) -> None:
        if not all(type(count) is int and count >= 0 for count in counts):
            self.note(self.no_counts, line, counts_fault(counts))
        elif self.no_counts.total:
            return  # the places in held_out are no longer those of the users
        elif again or 2 * user == len(self.held_out):
            self.held_out[2 * user : 2 * user + 2] = array("q", counts)
        elif counts != self.held_out[2 * user : 2 * user + 2].tolist():
            shown = ", ".join(f"{name}={count!r:.40}" for name, count in zip(HELD_OUT, counts, strict=True))
            self.note(self.no_counts, line, f"{shown}: an earlier record of the user has other counts.")


def _moments(given: object, count: int) -> tuple[list[int | float] | None, bool]:
    """Return a list of `count` times, all numbers or all dates, and whether they are dates; None for anything else."""
    if not isinstance(given, list | tuple | np.ndarray) or len(given) != count:
        return None, False
    numbers = [moment for moment in map(as_number, given) if moment is not None]
    if len(numbers) == count:
        return numbers, False
    dates: list[int | float] = [moment for moment in map(as_microseconds, given) if moment is not None]
    return (dates, True) if len(dates) == count else (None, True)


def _id_inside(value: Mapping[str, Any]) -> str:
    """Return the field of an object that is the item by its name, else its first one."""
    return find_fields(tuple(value), (None, None, None)).item.name or str(next(iter(value)))


def _example(record: Mapping[str, Any], role: Role) -> str:
    """Return a path to the item in a list of objects, for a message: ", e.g. events.aid"."""
    for name, value in record.items() if role == "item" else ():
        if isinstance(value, list) and value and isinstance(value[0], dict) and value[0]:
            return f", e.g. {name}.{_id_inside(value[0])}"
    return ""


def _shown(value: object) -> str:
    """Describe a value that is no string, for a message."""
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    return f"of type {type(value).__name__}"
