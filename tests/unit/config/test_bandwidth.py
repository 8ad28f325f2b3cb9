"""Timetables and allowances: what a text means at every minute, and that a wrong one says where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.bandwidth import Allowance, Caps, Timetable

MIB = 2**20
MON, TUE, FRI, SAT, SUN = 0, 1, 4, 5, 6
FREE = Caps()


def at(hours, minutes=0):
    return hours * 60 + minutes


# Timetables


@pytest.mark.parametrize("text", ["", "  ", "unlimited", "else unlimited", "unlimited:unlimited"])
def test_no_word_is_no_limit(text):
    """Nothing said, and everything said to be unlimited, are the same at any minute."""
    assert Timetable.parse(text).caps_at(MON, 0) == FREE


@pytest.mark.parametrize(
    ("weekday", "minute", "caps"),
    [
        (MON, at(8), Caps(2 * MIB, 10 * MIB)),
        (MON, at(17, 59), Caps(2 * MIB, 10 * MIB)),
        (MON, at(7, 59), FREE),
        (MON, at(18), FREE),
        (FRI, at(12), Caps(2 * MIB, 10 * MIB)),
        (SAT, at(12), FREE),
    ],
)
def test_rule_holds_from_its_first_minute_to_the_last_before_its_end(weekday, minute, caps):
    """Days include both ends, times the beginning only; outside it is the last rule."""
    table = Timetable.parse("mon-fri 08:00-18:00 2MiB/s:10MiB/s, else unlimited")

    assert table.caps_at(weekday, minute) == caps


@pytest.mark.parametrize(
    ("weekday", "minute", "is_capped"),
    [
        (FRI, at(22), True),
        (FRI, at(23, 59), True),
        (SAT, at(5, 59), True),
        (SAT, at(6), False),
        (SAT, at(22), False),
        (FRI, at(3), False),
    ],
)
def test_time_past_midnight_belongs_to_the_day_it_begins(weekday, minute, is_capped):
    """fri 22:00-06:00 ends on Saturday morning, and says nothing of Friday morning."""
    caps = Timetable.parse("fri 22:00-06:00 1M").caps_at(weekday, minute)

    assert (caps != FREE) == is_capped


def test_night_of_sunday_ends_on_monday():
    """The week has no seam."""
    table = Timetable.parse("sun 22:00-06:00 1M")

    assert table.caps_at(MON, at(5)) == Caps(MIB, MIB)
    assert table.caps_at(TUE, at(5)) == FREE


@pytest.mark.parametrize("text", ["22:00-00:00 1M", "22:00-24:00 1M"])
def test_midnight_ends_a_day_under_both_of_its_names(text):
    """00:00 and 24:00 as an end leave nothing for the next day."""
    table = Timetable.parse(text)

    assert table.caps_at(MON, at(23, 59)) == Caps(MIB, MIB)
    assert table.caps_at(TUE, 0) == FREE


@pytest.mark.parametrize(
    ("days", "which"),
    [
        ("sat", {5}),
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("fri-mon", {4, 5, 6, 0}),
        ("mon+wed+sat-sun", {0, 2, 5, 6}),
        ("MON-Tue", {0, 1}),
        ("sun-sat", {0, 1, 2, 3, 4, 5, 6}),
    ],
)
def test_days_are_names_spans_and_sums_of_them(days, which):
    """A span may pass the end of the week; capitals do not matter."""
    table = Timetable.parse(f"{days} 1M")

    assert {day for day in range(7) if table.caps_at(day, at(12)) != FREE} == which


def test_first_rule_that_fits_wins():
    """Later rules are for what the earlier ones leave."""
    table = Timetable.parse("sat 1M, sat-sun 12:00-13:00 2M, else 3M")

    assert [table.caps_at(day, at(12)).up_bytes_s for day in (SAT, SUN, MON)] == [MIB, 2 * MIB, 3 * MIB]


@pytest.mark.parametrize(
    ("word", "caps"),
    [
        ("2048B", Caps(2048, 2048)),
        ("2KB/s", Caps(2000, 2000)),
        ("2KiB/s", Caps(2048, 2048)),
        ("2k", Caps(2048, 2048)),
        ("1.5MB/s", Caps(1_500_000, 1_500_000)),
        ("2miB/s", Caps(2 * MIB, 2 * MIB)),
        ("1G:unlimited", Caps(2**30, None)),
        ("unlimited:1GB/s", Caps(None, 10**9)),
        ("1KiB/s:2KiB/s", Caps(1024, 2048)),
    ],
)
def test_caps_are_up_and_down_or_one_for_both(word, caps):
    """KB is a thousand bytes, KiB and K are 1024; /s may be left out."""
    assert Timetable.parse(word).caps_at(MON, 0) == caps


def test_text_comes_back():
    """What was written is what people see, in one line."""
    assert str(Timetable.parse("  sat 1M,\n else 2M ")) == "sat 1M, else 2M"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fast", "rule 1: caps are up:down"),
        ("2", "rule 1: caps are up:down"),
        ("2Mb/s", "rule 1: caps are up:down"),
        ("2Mbit/s", "rule 1: caps are up:down"),
        ("1M:2M:3M", "rule 1: caps are up:down"),
        ("1M:", "rule 1: caps are up:down"),
        ("-1M", "rule 1: caps are up:down"),
        ("٣M", "rule 1: caps are up:down"),
        ("sat 1M,", "rule 2: caps are up:down"),
        ("sat 1M, sun", "rule 2: caps are up:down"),
        ("else", "rule 1: caps are up:down"),
        ("1023B/s", "rule 1: caps must be from 1KiB/s"),
        ("0B", "rule 1: caps must be from 1KiB/s"),
        ("999999999999999G", "rule 1: caps must be from 1KiB/s to 1024TiB/s"),
        ("sat 1M, mony 1M", "rule 2: days are mon, tue, wed, thu, fri, sat, sun"),
        ("mon-fry 1M", "rule 1: days are"),
        ("mon- 1M", "rule 1: days are"),
        ("mon+ 1M", "rule 1: days are"),
        ("mon-tue-wed 1M", "rule 1: days are"),
        ("otherwise 1M", "rule 1: days are"),
        ("25:00-26:00 1M", "rule 1: times are HH:MM-HH:MM"),
        ("08:60-09:00 1M", "rule 1: times are HH:MM-HH:MM"),
        ("24:00-06:00 1M", "rule 1: times are HH:MM-HH:MM"),
        ("08:00-24:01 1M", "rule 1: times are HH:MM-HH:MM"),
        ("08:00-08:00 1M", "rule 1: times are HH:MM-HH:MM"),
        ("8-18 1M", "rule 1: times are HH:MM-HH:MM"),
        ("08:00-18:00 mon 1M", "rule 1: must be [days] [from-to] caps"),
        ("mon 08:00-18:00 1M 2M", "rule 1: must be [days] [from-to] caps"),
        ("mon else 1M", "rule 1: times are HH:MM-HH:MM"),
        ("else 1M, sat 2M", "rule 2 is never reached"),
        ("1M, sat 2M", "rule 2 is never reached"),
        ("mon-sun 1M, else 2M", "rule 2 is never reached"),
    ],
)
def test_wrong_timetable_names_the_rule_and_what_is_allowed(text, problem):
    """A fault has a place, and a rule that could never matter is a fault."""
    with pytest.raises(ValueError, match="rule") as caught:
        Timetable.parse(text)

    assert str(caught.value).startswith(problem)


def test_fault_does_not_quote_the_text():
    """The text may come from a file that was meant for something else."""
    with pytest.raises(ValueError, match="rule 1") as caught:
        Timetable.parse("s3cr3t")

    assert "s3cr3t" not in str(caught.value)


WORDS = st.sampled_from(["mon", "sat-sun", "else", "08:00-18:00", "23:00-1:00", "1M", "2KB:1G", ",", "unlimited", "x"])


@given(st.one_of(st.text(), st.lists(WORDS, max_size=8).map(" ".join)))
def test_any_text_has_caps_for_every_minute_or_is_refused(text):
    """No text leads to a traceback, and what is accepted is never below the least."""
    try:
        table = Timetable.parse(text)
    except ValueError:
        return
    for weekday in range(7):
        for minute in range(0, 1440, 97):
            caps = table.caps_at(weekday, minute)
            assert all(rate is None or rate >= 1024 for rate in (caps.up_bytes_s, caps.down_bytes_s))
    assert Timetable.parse(str(table)) == table


# Allowances


@pytest.mark.parametrize(
    ("text", "limit_bytes", "period_s"),
    [
        ("10GiB/30d", 10 * 2**30, 30 * 86400),
        ("500MB/1d", 500_000_000, 86400),
        ("1.5G / 12h", 3 * 2**29, 12 * 3600),
        ("1MB/366d", 1_000_000, 366 * 86400),
        ("", 0, 0),
    ],
)
def test_allowance_is_bytes_in_a_period(text, limit_bytes, period_s):
    """Days and hours; an empty text is no limit."""
    allowance = Allowance.parse(text)

    assert (allowance.limit_bytes, allowance.period_s) == (limit_bytes, period_s)
    assert str(allowance) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10GiB", "must be bytes/period"),
        ("10GiB/month", "must be bytes/period"),
        ("10GiB/30", "must be bytes/period"),
        ("10GiB/30m", "must be bytes/period"),
        ("10/30d", "the bytes must be a number with B"),
        ("10Gb/30d", "the bytes must be a number with B"),
        ("999999B/1d", "the bytes must be a number with B"),
        ("2000T/1d", "the bytes must be a number with B"),
        ("10GiB/0d", "the period must be from 1h to 366d"),
        ("10GiB/367d", "the period must be from 1h to 366d"),
    ],
)
def test_wrong_allowance_says_what_is_allowed(text, problem):
    """A budget that cannot be meant is refused with the form of a right one."""
    with pytest.raises(ValueError, match="must") as caught:
        Allowance.parse(text)

    assert str(caught.value).startswith(problem)


SIZES = st.from_regex(r"[0-9]{1,16}(\.[0-9])?[KMGTkm]?[iI]?B?/[0-9]{1,5}[hdm]", fullmatch=True)


@given(st.one_of(st.text(), SIZES))
def test_any_text_is_an_allowance_within_bounds_or_refused(text):
    """No text leads to a traceback, and what is accepted has a limit and a period, or neither."""
    try:
        allowance = Allowance.parse(text)
    except ValueError:
        return
    assert bool(allowance.limit_bytes) == bool(allowance.period_s) == bool(text.strip())
