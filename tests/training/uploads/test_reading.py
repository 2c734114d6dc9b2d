"""Tests of reading CSV files in every format, and of refusing files with faults."""

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
    chinese_header,
    csv_file,
    faults_of,
    read_rows,
    upload_of,
)

HEADER = "person,course,version,completed_on,passed\n"
LINE = "E1,LAW,1,2026-01-05,yes\n"
COMPLETION = ("E1", "LAW", 1, date(2026, 1, 5), True)


def read_completions(text: str) -> list[Values]:
    return read_rows(text.encode(), Kind.COMPLETIONS)


def completion_faults(text: str) -> list[str]:
    return faults_of(text.encode(), Kind.COMPLETIONS)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_are_the_same_for_every_encoding_and_delimiter(encoding: str, delimiter: str) -> None:
    for header in (None, chinese_header(Kind.ROSTER)):
        content = csv_file(ROSTER, encoding=encoding, delimiter=delimiter, header=header)
        assert read_rows(content) == ROSTER_READ


def test_rows_of_courses_and_completions_are_parsed() -> None:
    assert read_rows(csv_file(COURSES), Kind.COURSES) == [
        ("ONB", "入职培训", "onboarding", 1, date(2024, 1, 1), 30, None, None, None),
        ("LAW", "个人信息保护法", "law", 2, date(2025, 6, 1), 60, None, "03-31", 30),
    ]
    assert read_rows(csv_file(COMPLETIONS), Kind.COMPLETIONS) == [
        ("E0001", "ONB", 1, date(2024, 3, 20), True),
        ("E0002", "LAW", 2, date(2025, 7, 1), False),
    ]


VISIBLE = st.characters(
    codec="utf-8",
    categories=("L", "N", "P", "S"),
    exclude_characters="\ufeff",
)
CODES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/@-]{0,11}", fullmatch=True)
# At least one Chinese character, so that the encoding of a file without a mark is clear.
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
    line_ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    order=st.permutations(range(11)),
)
def test_written_roster_is_read_back_unchanged_in_every_csv_format(
    people: list[dict[str, Any]],
    encoding: str,
    delimiter: str,
    line_ending: str,
    quoting: int,
    order: list[int],
) -> None:
    names = [list(people[0])[index] for index in order]
    rows = [{name: cell(person[name]) for name in names} for person in people]
    content = csv_file(
        rows, encoding=encoding, delimiter=delimiter, line_ending=line_ending, quoting=quoting
    )
    expected = [
        tuple(
            " ".join(value.split()) if isinstance(value, str) else value
            for value in (person[column.name] for column in COLUMNS[Kind.ROSTER])
        )
        for person in people
    ]
    try:
        result = read_rows(content)
    except UploadRefused:
        assert encoding == "GB18030"
    else:
        assert result == expected


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
def test_invalid_cell_is_reported_with_line_and_column(data: st.DataObject, kind: Kind) -> None:
    column = data.draw(st.sampled_from(COLUMNS[kind]))
    before, after = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    blank = dict.fromkeys(SAMPLES[kind][0], "")
    broken = SAMPLES[kind][0] | {column.name: BROKEN[kind][column.name]}
    rows = [*[blank] * before, broken, *[blank] * after, SAMPLES[kind][1]]
    (expected,) = faults_of(csv_file(rows), kind)
    assert expected.startswith(f"line {2 + before}: {column.title}: ")


def test_first_line_that_begins_with_sep_defines_the_delimiter_of_the_file() -> None:
    for delimiter in ",;\t":
        content = csv_file(COMPLETIONS, delimiter=delimiter, prefix=f"sep={delimiter}\r\n")
        assert len(read_rows(content, Kind.COMPLETIONS)) == 2
    assert completion_faults("sep=|\n" + HEADER) == [
        "line 1: sep= names neither comma nor semicolon nor tab"
    ]
    assert completion_faults("sep=,\n" + HEADER + "E1,LAW,1,x,yes\n")[0].startswith(
        "line 3: completed_on"
    )


def test_blank_lines_and_blank_extra_cells_are_ignored() -> None:
    text = f"\n,,,,\n{HEADER.strip()},,\n\n{LINE.strip()},,,\n , ,\u3000,,\n\r\n{LINE}"
    assert read_completions(text) == [COMPLETION, COMPLETION]


def test_quoted_csv_cell_may_contain_line_breaks() -> None:
    rows = [ROSTER[0] | {"name": "王\n芳"}, ROSTER[1] | {"access": "?"}]
    assert faults_of(csv_file(rows)) == ["line 4: access (客户信息权限): is neither yes nor no"]
    rows[1] = ROSTER[1]
    assert read_rows(csv_file(rows))[0][1] == "王 芳"
    header = [item.replace("工号", "工\n号") for item in chinese_header(Kind.COMPLETIONS)]
    assert len(read_rows(csv_file(COMPLETIONS, header=header), Kind.COMPLETIONS)) == 2
    header = ["Person", " COURSE ", "课程版本", "Completed\nOn", "是否通过"]
    assert len(read_rows(csv_file(COMPLETIONS, header=header), Kind.COMPLETIONS)) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["The file is empty."]),
        ("\n\n ,,\n", ["The file is empty."]),
        (HEADER, ["The file is empty."]),
        (
            "person,course,version,completed_on\n",
            [
                "line 1: missing columns: passed (通过); see ./parcelseal training template"
                " completions"
            ],
        ),
        (HEADER.replace("version", "工号") + LINE, ["line 1: person (工号): appears twice"]),
        (
            HEADER.replace("passed", "passed,王芳") + LINE,
            ["line 1: column 6: is not a column of this file"],
        ),
        (
            HEADER.replace("passed", "passed,,通过") + LINE,
            ["line 1: column 6: has no name", "line 1: passed (通过): appears twice"],
        ),
        (
            HEADER + "E1,LAW,1,2026-01-05\n",
            ["line 2: it has 4 cells, but the header has 5"],
        ),
        (
            HEADER + LINE.strip() + ",王芳\n",
            ["line 2: it has 6 cells, but the header has 5"],
        ),
        (
            HEADER + "E1;LAW;1\n" + LINE,
            ["line 2: it has 1 cells, but the header has 5"],
        ),
        (HEADER + LINE.replace("LAW", "L\0W"), ["line 2: it contains a NUL byte"]),
        (HEADER + LINE + '"E1' + LINE * 200, ["line 3: a quotation mark is not closed"]),
        (HEADER + LINE + '"E1"x' + LINE, ["line 3: a quotation mark is not closed"]),
        (HEADER + LINE + '"E1' + LINE, ["line 3: a quotation mark is not closed"]),
        (HEADER + LINE + "x" * 70_000, ["line 3: it is longer than 65,536 characters"]),
        ("x" * 70_000, ["line 1: it is longer than 65,536 characters"]),
    ],
)
def test_error_for_faulty_csv_line_contains_its_line_number_but_no_cell_values(
    text: str, expected: list[str]
) -> None:
    result = completion_faults(text)
    assert [item.startswith(start) for item, start in zip(result, expected, strict=False)] == [
        True
    ] * len(expected)
    assert "王芳" not in "".join(result)


def test_error_for_faulty_file_contains_number_of_all_faults_and_the_first_fifty_faults() -> None:
    with pytest.raises(UploadRefused) as error:
        read_completions(HEADER + LINE + "E1,LAW,x,y,z\n" * 40)
    assert (error.value.count, len(error.value.faults)) == (120, 50)
    lines = str(error.value).splitlines()
    assert lines[0] == "file.csv has 120 faults, so nothing of it was stored:"
    assert lines[1].startswith("- line 3: version (版本): is not a whole number")
    assert lines[-1] == "- and 70 more"


def test_no_row_is_yielded_after_first_fault() -> None:
    rows = upload_of((HEADER + LINE + "E1,LAW,1,x,yes\n" + LINE).encode(), Kind.COMPLETIONS).rows()
    assert next(rows) == COMPLETION
    with pytest.raises(UploadRefused):
        next(rows)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"left_on": "2023-01-01"}, "left_on (离职日期): is before joined_on"),
        ({"leave_until": "2026-01-01"}, "leave_until (休假结束): is before leave_from"),
        ({"leave_from": ""}, "leave_from (休假开始): is empty, but leave_until is set"),
    ],
)
def test_contradicting_dates_of_person_are_reported(change: dict[str, str], expected: str) -> None:
    assert faults_of(csv_file([ROSTER[1], ROSTER[0] | change])) == [f"line 3: {expected}"]
    assert read_rows(csv_file([ROSTER[0] | {"leave_until": ""}]))[0][9] is None


def test_course_with_two_repetition_rules_or_duplicate_version_is_reported() -> None:
    course = COURSES[1] | {"repeat_months": "12"}
    assert faults_of(csv_file([COURSES[0], course, COURSES[1]]), Kind.COURSES) == [
        "line 3: due_each_year (每年截止日): is set together with repeat_months: leave one of them "
        "empty",
        "line 4: its course and version appear in an earlier line",
    ]


def test_names_and_aliases_of_upload_columns_are_unique() -> None:
    for columns in COLUMNS.values():
        names = [
            unicodedata.normalize("NFKC", name).casefold()
            for column in columns
            for name in {column.name, column.chinese, *column.aliases}
        ]
        assert len(names) == len(set(names))
