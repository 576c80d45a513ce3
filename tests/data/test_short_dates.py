"""Dates with the year last: one date that fits one order of day and month decides for all; none is guessed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid import read_interactions
from semid.errors import InputError

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.replace(microsecond=0))


def rows(*dates: str) -> list[dict[str, str]]:
    return [{"user": "u", "item": str(place), "date": date} for place, date in enumerate(dates)]


def refusal(*dates: str, **reading: object) -> str:
    with pytest.raises(InputError) as caught:
        read_interactions(rows(*dates), **reading)
    return str(caught.value)


@given(st.lists(MOMENTS, min_size=1, max_size=9), st.sampled_from(["%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d.%m.%Y"]))
def test_times_are_those_that_were_written(moments, order):
    sure = datetime(2001, 1, 31)  # it fits one order only
    for clock in ("%H:%M:%S", "%I:%M:%S %p"):
        read = read_interactions(rows(*(moment.strftime(f"{order} {clock}") for moment in [sure, *moments])))
        assert read.times.tolist() == sorted(
            moment.replace(tzinfo=UTC).timestamp() * 1e6 for moment in [sure, *moments]
        )


def test_the_order_of_day_and_month_is_said(caplog):
    assert list(read_interactions(rows("12/13/2010 8:26", "1/2/2011 8:26", "12/1/2010 8:27"))) == [
        ("u", ["2", "0", "1"])
    ]
    assert caplog.messages[-1] == 'items: dates of date are read with the month first, as in "12/13/2010 8:26"'
    assert list(read_interactions(rows("13/12/2010", "2/11/2010"))) == [("u", ["1", "0"])]
    assert caplog.messages[-1] == 'items: dates of date are read with the day first, as in "13/12/2010"'


@pytest.mark.parametrize("skip", [False, True])
def test_no_order_is_guessed(skip):
    told = (
        'items: date "3/12/2010" at items[0]: the month or the day may come first, in all rows. Write dates as '
        "2020-01-31, or if the rows are oldest first, use --time-field ''."
    )
    assert refusal("3/12/2010", "1/2/2010", skip_bad_rows=skip) == told
    assert list(read_interactions(rows("3/12/2010", "1/2/2010"), time_field="")) == [("u", ["0", "1"])]
    told = 'items: date "13/12/2010" at items[0] has the day first, "12/13/2010" at items[1] has not. Write all alike.'
    assert refusal("13/12/2010", "12/13/2010", skip_bad_rows=skip) == told
    told = "items[1]: a date with the year last here, a date as time at items[0]. Write all alike."
    assert refusal("2010-01-01", "1/13/2010", skip_bad_rows=skip) == told


def test_mixed_times_are_refused_also_where_bad_rows_are_skipped():
    assert refusal("5", "2010-01-01", skip_bad_rows=True).startswith("items[1]: a date as time here, a number as time")


def test_a_date_that_fits_no_order_is_a_bad_row(caplog):
    assert 'date "13/13/2010" is no time' in refusal("13/13/2010", "1/13/2010")
    read = read_interactions(rows("13/13/2010", "1/13/2010"), skip_bad_rows=True)
    assert (list(read), read.times.tolist()) == ([("u", ["1"])], [1263340800e6])


@pytest.mark.parametrize(
    "early, late", [("2020-1-9", "2020-1-10"), ("9.1.2020", "10.01.2020"), ("2020/1/9", "2020/1/10")]
)
def test_dates_without_zeros_are_compared_as_dates(early, late):
    assert list(read_interactions(rows(late, early))) == [("u", ["1", "0"])]
