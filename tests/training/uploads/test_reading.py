"""A file is read whole, in every form that Excel gives it, or refused with every fault."""

from __future__ import annotations

import csv
import unicodedata
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.uploads.cells import UploadRefused
from include.training.uploads.reading import COLUMNS, Kind, Values
from tests.training.uploads.support import (
    COMPLETIONS,
    COURSES,
    ENCODINGS,
    ROSTER,
    ROSTER_READ,
    SAMPLES,
    chinese,
    faults,
    read,
    upload,
    written,
)

HEADER = "person,course,version,completed_on,passed\n"
LINE = "E1,LAW,1,2026-01-05,yes\n"
DONE = ("E1", "LAW", 1, date(2026, 1, 5), True)


def completions(text: str) -> list[Values]:
    return read(text.encode(), Kind.COMPLETIONS)


def wrong(text: str) -> list[str]:
    return faults(text.encode(), Kind.COMPLETIONS)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_roster_reads_the_same_in_every_form(encoding: str, delimiter: str) -> None:
    """Whatever its encoding and delimiter, with names of columns in English or Chinese."""
    for header in (None, chinese(Kind.ROSTER)):
        content = written(ROSTER, encoding=encoding, delimiter=delimiter, header=header)
        assert read(content) == ROSTER_READ


def test_courses_and_completions_are_read() -> None:
    """With their numbers, days and topics."""
    assert read(written(COURSES), Kind.COURSES) == [
        ("ONB", "入职培训", "onboarding", 1, date(2024, 1, 1), 30, None, None, None),
        ("LAW", "个人信息保护法", "law", 2, date(2025, 6, 1), 60, None, "03-31", 30),
    ]
    assert read(written(COMPLETIONS), Kind.COMPLETIONS) == [
        ("E0001", "ONB", 1, date(2024, 3, 20), True),
        ("E0002", "LAW", 2, date(2025, 7, 1), False),
    ]


VISIBLE = st.characters(
    codec="utf-8",
    categories=("L", "N", "P", "S"),
    exclude_characters="\ufeff",
)
CODES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/@-]{0,11}", fullmatch=True)
# At least one Chinese character, so that a file without a mark cannot be two encodings.
NAMES = st.tuples(st.text(VISIBLE, max_size=8), st.just("王芳"), st.text(VISIBLE, max_size=8))
DAYS = st.dates(date(1900, 1, 1), date(2199, 12, 31))
PEOPLE = st.fixed_dictionaries(
    {
        "person": CODES,
        "name": NAMES.map("".join),
        "mail": st.none() | CODES.map("{}@courier.example".format),
        "department": st.sampled_from(["第一营业部", "财务部", 'Dept; "A", B\tC']),
        "supervisor": st.none() | CODES,
        "head": st.booleans(),
        "joined_on": DAYS,
        "left_on": st.none(),
        "leave_from": DAYS,
        "leave_until": st.none(),
        "access": st.booleans(),
    }
)


def cell(value: Any) -> str:
    if value is None:
        return ""
    return ("是" if value else "否") if isinstance(value, bool) else str(value)


@given(
    people=st.lists(PEOPLE, min_size=1, max_size=5),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    delimiter=st.sampled_from(",;\t"),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    order=st.permutations(range(11)),
)
def test_any_valid_table_reads_back(
    people: list[dict[str, Any]],
    encoding: str,
    delimiter: str,
    ends: str,
    quoting: int,
    order: list[int],
) -> None:
    """In every encoding, delimiter, quoting, order of columns and ending of lines.

    A file without a mark may be refused for its encoding; it never reads as something else.
    """
    names = [list(people[0])[place] for place in order]
    rows = [{name: cell(one[name]) for name in names} for one in people]
    content = written(rows, encoding=encoding, delimiter=delimiter, ends=ends, quoting=quoting)
    expected = [
        tuple(
            " ".join(value.split()) if isinstance(value, str) else value
            for value in (one[column.name] for column in COLUMNS[Kind.ROSTER])
        )
        for one in people
    ]
    try:
        found = read(content)
    except UploadRefused:
        assert encoding == "GB18030"
    else:
        assert found == expected


BROKEN = {
    Kind.ROSTER: {
        "person": "王 芳",
        "name": "\x07",
        "mail": "x" * 301,
        "department": " ",
        "supervisor": "=A1",
        "head": "maybe",
        "joined_on": "5/1/2026",
        "left_on": "2019-01-01",
        "leave_from": "2026-02-30",
        "leave_until": "soon",
        "access": "",
    },
    Kind.COURSES: {
        "course": "a b",
        "title": "",
        "topic": "cooking",
        "version": "0",
        "published_on": "never",
        "within_days": "-1",
        "repeat_months": "0",
        "due_each_year": "02-29",
        "retake_within_days": "1.5",
    },
    Kind.COMPLETIONS: {
        "person": "",
        "course": "+1",
        "version": "1,000",
        "completed_on": "46027",
        "passed": "2",
    },
}


@given(data=st.data(), kind=st.sampled_from(list(Kind)))
def test_any_single_broken_cell_is_named_by_its_line_and_column(
    data: st.DataObject, kind: Kind
) -> None:
    """And nothing else is named; blank lines count, a title has both names."""
    column = data.draw(st.sampled_from(COLUMNS[kind]))
    before, after = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    blank = dict.fromkeys(SAMPLES[kind][0], "")
    broken = SAMPLES[kind][0] | {column.name: BROKEN[kind][column.name]}
    rows = [*[blank] * before, broken, *[blank] * after, SAMPLES[kind][1]]
    (said,) = faults(written(rows), kind)
    assert said.startswith(f"line {2 + before}: {column.title}: ")


def test_sep_at_the_beginning_names_the_delimiter() -> None:
    """As Excel understands it, whatever the header looks like; lines count from it."""
    for delimiter in ",;\t":
        content = written(COMPLETIONS, delimiter=delimiter, before=f"sep={delimiter}\r\n")
        assert len(read(content, Kind.COMPLETIONS)) == 2
    assert wrong("sep=|\n" + HEADER) == ["line 1: sep= names no comma, semicolon or tab"]
    assert wrong("sep=,\n" + HEADER + "E1,LAW,1,x,yes\n")[0].startswith("line 3: completed_on")


def test_blank_lines_and_cells_beyond_the_last_column_do_not_count() -> None:
    """Excel leaves both."""
    text = f"\n,,,,\n{HEADER.strip()},,\n\n{LINE.strip()},,,\n , ,\u3000,,\n\r\n{LINE}"
    assert completions(text) == [DONE, DONE]


def test_a_cell_may_go_over_lines() -> None:
    """What follows is named by its own line; a header may too."""
    rows = [ROSTER[0] | {"name": "王\n芳"}, ROSTER[1] | {"access": "?"}]
    assert faults(written(rows)) == ["line 4: access (客户信息权限): is neither yes nor no"]
    rows[1] = ROSTER[1]
    assert read(written(rows))[0][1] == "王 芳"
    header = [one.replace("工号", "工\n号") for one in chinese(Kind.COMPLETIONS)]
    assert len(read(written(COMPLETIONS, header=header), Kind.COMPLETIONS)) == 2
    header = ["Person", " COURSE ", "课程版本", "Completed\nOn", "是否通过"]
    assert len(read(written(COMPLETIONS, header=header), Kind.COMPLETIONS)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["It is empty."]),
        ("\n\n ,,\n", ["It is empty."]),
        (HEADER, ["It is empty."]),
        (
            "person,course,version,completed_on\n",
            [
                "line 1: there is no column passed (通过); see ./parcelseal training template"
                " completions"
            ],
        ),
        (HEADER.replace("version", "工号") + LINE, ["line 1: person (工号): is there twice"]),
        (
            HEADER.replace("passed", "passed,王芳") + LINE,
            ["line 1: column 6: is none of this file's columns"],
        ),
        (
            HEADER.replace("passed", "passed,,通过") + LINE,
            ["line 1: column 6: has no name", "line 1: passed (通过): is there twice"],
        ),
        (
            HEADER + "E1,LAW,1,2026-01-05\n",
            ["line 2: it has another number of cells (4) than the header (5)"],
        ),
        (
            HEADER + LINE.strip() + ",王芳\n",
            ["line 2: it has another number of cells (6) than the header (5)"],
        ),
        (
            HEADER + "E1;LAW;1\n" + LINE,
            ["line 2: it has another number of cells (1) than the header (5)"],
        ),
        (HEADER + LINE.replace("LAW", "L\0W"), ["line 2: it holds a NUL byte"]),
        (HEADER + LINE + '"E1' + LINE * 200, ["line 3: a quotation mark is not closed"]),
        (HEADER + LINE + '"E1"x' + LINE, ["line 3: a quotation mark is not closed"]),
        (HEADER + LINE + '"E1' + LINE, ["line 3: a quotation mark is not closed"]),
        (HEADER + LINE + "x" * 70_000, ["line 3: it is longer than 65,536 characters"]),
        ("x" * 70_000, ["line 1: it is longer than 65,536 characters"]),
    ],
)
def test_what_is_wrong_with_a_line_is_named(text: str, said: list[str]) -> None:
    """Without a word of what it holds."""
    found = wrong(text)
    assert [one.startswith(start) for one, start in zip(found, said, strict=False)] == [True] * len(
        said
    )
    assert "王芳" not in "".join(found)


def test_all_faults_are_counted_and_the_first_are_shown() -> None:
    """Fifty of them, in the order of the file."""
    with pytest.raises(UploadRefused) as refused:
        completions(HEADER + LINE + "E1,LAW,x,y,z\n" * 40)
    assert (refused.value.count, len(refused.value.faults)) == (120, 50)
    lines = str(refused.value).splitlines()
    assert lines[0] == "file.csv has 120 faults, and nothing of it was taken:"
    assert lines[1].startswith("- line 3: version (版本): is no whole number")
    assert lines[-1] == "- and 70 more"


def test_nothing_comes_after_the_first_fault() -> None:
    """What was stored before it is given up, and what follows would be for nothing."""
    rows = upload((HEADER + LINE + "E1,LAW,1,x,yes\n" + LINE).encode(), Kind.COMPLETIONS).rows()
    assert next(rows) == DONE
    with pytest.raises(UploadRefused):
        next(rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"left_on": "2023-01-01"}, "left_on (离职日期): is before joined_on"),
        ({"leave_until": "2026-01-01"}, "leave_until (休假结束): is before leave_from"),
        ({"leave_from": ""}, "leave_from (休假开始): is empty, and the leave has an end"),
    ],
)
def test_days_of_a_person_that_contradict_each_other_are_named(
    change: dict[str, str], said: str
) -> None:
    """A leave without an end is none of them."""
    assert faults(written([ROSTER[1], ROSTER[0] | change])) == [f"line 3: {said}"]
    assert read(written([ROSTER[0] | {"leave_until": ""}]))[0][9] is None


def test_courses_that_contradict_each_other_are_named() -> None:
    """A course is repeated in one way, and has each version once."""
    both = COURSES[1] | {"repeat_months": "12"}
    assert faults(written([COURSES[0], both, COURSES[1]]), Kind.COURSES) == [
        "line 3: due_each_year (每年截止日): is given beside repeat_months: leave one of them "
        "empty",
        "line 4: its course and version stand in an earlier line",
    ]


def test_names_of_columns_do_not_clash() -> None:
    """A name that two columns had would fill the wrong one."""
    for columns in COLUMNS.values():
        names = [
            unicodedata.normalize("NFKC", name).casefold()
            for one in columns
            for name in {one.name, one.chinese, *one.aliases}
        ]
        assert len(names) == len(set(names))
