"""Dates such as 12/1/2010: whether the month or the day comes first is told from all dates of a column.

One date with a number above 12 decides for all. Without such a date, both orders are possible, and none is guessed.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field

from semid.data.values import as_microseconds
from semid.files.problems import Problems, quote

__all__ = ["ShortDates"]

SHORT = re.compile(r"\s*(\d\d?)([/-])(\d\d?)\2(\d{4})(.*)", re.DOTALL)


@dataclass
class ShortDates:
    """The dates of a column, read both ways, in microseconds since 1970; 0 where one way is impossible.

    >>> dates = ShortDates()
    >>> [dates.add(2, "12/1/2010 8:26"), dates.add(3, "12/13/2010"), dates.add(4, "soon")]
    [True, True, False]
    >>> dates.chosen(Problems("log.csv"), "InvoiceDate")[1]
    'dates of InvoiceDate are read with the month first, as in "12/13/2010"'
    """

    month_first: array[int] = field(default_factory=lambda: array("q"))
    day_first: array[int] = field(default_factory=lambda: array("q"))
    only_month: tuple[int, str] | None = None  # line and text of the first date that has the month first
    only_day: tuple[int, str] | None = None
    example: tuple[int, str] = (0, "")  # the first date of all

    def add(self, line: int, text: object) -> bool:
        """Add a date; False, and nothing added, if it is none."""
        found = SHORT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            return False
        one, _, two, year, clock = found.groups()
        month_first, day_first = (as_microseconds(f"{year}-{date}{clock}") for date in (f"{one}-{two}", f"{two}-{one}"))
        if month_first is None and day_first is None:
            return False
        if not self.month_first:
            self.example = line, found[0]
        if day_first is None:
            self.only_month = self.only_month or (line, found[0])
        elif month_first is None:
            self.only_day = self.only_day or (line, found[0])
        self.month_first.append(month_first or 0)
        self.day_first.append(day_first or 0)
        return True

    def chosen(self, problems: Problems, name: str) -> tuple[array[int], str]:
        """Return the times, and what to say about them. If the order is not known, it is a problem.

        Parameters
        ----------
        problems : Problems
            Where it is noted.
        name : str
            The column.
        """
        month, day = self.only_month, self.only_day
        order, example = ("month", month) if month else ("day", day)
        if month and day:
            one, other = sorted((month, day))
            first = "the month first" if one == month else "the day first"
            early, late = problems.first_at(one[0]), problems.first_at(other[0])
            said = (
                f"{name} {quote(one[1])} at {early} has {first}, {quote(other[1])} at {late} has not. Write all alike."
            )
            problems.add(None, said)
        elif example is None:
            line, text = self.example
            said = (
                f"{name} {quote(text)} at {problems.first_at(line)}: the month or the day may come first, in all rows."
            )
            cure = "Write dates as 2020-01-31, or if the rows are oldest first, use --time-field ''."
            problems.add(None, f"{said} {cure}")
            return self.month_first, ""
        shown = quote(example[1]) if example else ""
        return self.day_first if order == "day" else self.month_first, (
            f"dates of {name} are read with the {order} first, as in {shown}"
        )
