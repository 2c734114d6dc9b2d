"""Tests of reading YAML files safely, with line numbers and faults."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from include.policy.document import (
    MAX_BYTES,
    AmbiguousScalar,
    Document,
    DocumentError,
    path_text,
    plain_value,
    read_bytes,
    read_document,
)


def is_plain_text(text: str) -> bool:
    """Return whether YAML 1.1 and YAML 1.2 both read an unquoted text as this same text."""
    try:
        return isinstance(plain_value(text), str)
    except AmbiguousScalar:
        return False


# PyYAML writes 1e3 and 0o7 without quotes, which are numbers of YAML 1.2: a pack quotes them.
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x7f\x85"), max_size=12).filter(
    lambda text: is_plain_text(text) or yaml.safe_dump(text)[:1] in "'\""
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)
_DATA = st.dictionaries(
    _TEXT,
    st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
        max_leaves=15,
    ),
    max_size=5,
)


def read(text: str) -> Document:
    return read_document(text.encode(), "x.yaml")


def faults_of(content: str | bytes) -> list[str]:
    raw = content.encode() if isinstance(content, str) else content
    try:
        return [str(fault) for fault in read_document(raw, "x.yaml").faults]
    except DocumentError as error:
        return [str(problem) for problem in error.problems]


@given(_DATA)
def test_read_document_returns_the_data_that_was_dumped_as_yaml(data: dict[str, object]) -> None:
    """PyYAML dumps any keys and values, and the reader returns the same data."""
    assert read(yaml.safe_dump(data, allow_unicode=True)).data == data


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_read_document_returns_the_line_number_of_every_key(gaps: list[int]) -> None:
    """Blank lines and comments must not change the recorded line numbers of keys."""
    text, expected = "", {}
    for at, gap in enumerate(gaps):
        text += "# note\n" * gap + f"key{at}:\n"
        expected[(f"key{at}",)] = text.count("\n")
        text += "\n" * gap + "  - a\n"
        expected[(f"key{at}", 0)] = text.count("\n")
    lines = read(text).lines
    assert {loc: lines[loc] for loc in expected} == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "x.yaml: is empty"),
        ("# only a comment\n", "x.yaml: is empty"),
        ("a: 1\nb: [1,\n", "x.yaml:3: is not valid YAML: "),
        ("a: 1\n\tb: 2\n", "x.yaml:2: is not valid YAML: found "),
        ("a: 1\na: 2\n", "x.yaml:2: a: this key occurs twice, first in line 1"),
        ("a:\n  b: {c: 1, c: 2}\n", "x.yaml:2: a.b.c: this key occurs twice, first in line 2"),
        ("a: 1\n2: b\n", 'x.yaml:2: a key should be text: write it in "quotes"'),
        ("on: b\n", 'x.yaml:1: a key should be text: write it in "quotes"'),
        ("? [a]\n: b\n", 'x.yaml:1: a key should be text: write it in "quotes"'),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: is not valid YAML: but found another document"),
        ("a: 1\nb: *c\n", "x.yaml:2: is not valid YAML: found undefined alias"),
        ("a: 1\nb: x\x01\n", "x.yaml:2: is not valid YAML: unacceptable character #x0001"),
        (b"a: 1\nb: \xff\xfe\n", "x.yaml:2: is not UTF-8 text: save it as UTF-8"),
        ("名: 电话".encode("gb18030"), "x.yaml:1: is not UTF-8 text: save it as UTF-8"),
        ("a: !!python/object/apply:os.system [id]\n", "x.yaml:1: a: the tag !!python/object"),
        ("a: !env SECRET\n", "x.yaml:1: a: the tag !env is not allowed in a pack"),
        ("a: !!set {b, c}\n", "x.yaml:1: a: the tag !!set is not allowed in a pack"),
        ("a: !!binary AAAA\n", "x.yaml:1: a: the tag !!binary is not allowed in a pack"),
        ("a: !!int 12\n", "x.yaml:1: a: the tag !!int is not allowed in a pack"),
        ("a: " + "9" * 5000, "x.yaml:1: a: a number has at most 4000 digits"),
        ("a: {<<: 3}\n", "x.yaml:1: a: only a mapping can be merged with <<"),
        ("a: &a\n  - *a\n", "x.yaml:1: is nested deeper than 60 levels, or an alias"),
        ("a: &a\n  <<: *a\n", "x.yaml:1: is nested deeper than 60 levels, or an alias"),
        ("a:\n  " + "[" * 100_000, "x.yaml:2: "),
        ("a:\n  " + "[" * 70 + "]" * 70, "x.yaml:2: is nested deeper than 60 levels"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_read_document_reports_one_problem_with_line_number_for_a_faulty_file(
    content: str | bytes, expected: str
) -> None:
    """Each faulty file gives a single problem with its line number."""
    [line] = faults_of(content)
    assert line.startswith(expected)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("value", "meanings"),
    [
        ("010", '10, 8 or the text "010"'),
        ("-010", '-10, -8 or the text "-010"'),
        ("08", '8 or the text "08"'),
        ("yes", 'true or the text "yes"'),
        ("No", 'false or the text "No"'),
        ("ON", 'true or the text "ON"'),
        ("off", 'false or the text "off"'),
        ("1_000", '1000 or the text "1_000"'),
        ("0x10", '16 or the text "0x10"'),
        ("0o10", '8 or the text "0o10"'),
        ("0b11", '3 or the text "0b11"'),
        (".5e3", '500 or the text ".5e3"'),
        (".5", '0.5 or the text ".5"'),
        ("1e3", '1000 or the text "1e3"'),
        ("1.", '1 or the text "1."'),
        ("+8613912345678", '8613912345678 or the text "+8613912345678"'),
        ("-0", '0 or the text "-0"'),
        ("1e999", 'a number that packs do not support or the text "1e999"'),
        (".inf", 'a number that packs do not support or the text ".inf"'),
        (".NaN", 'a number that packs do not support or the text ".NaN"'),
    ],
)
def test_read_document_reports_unquoted_value_that_can_have_several_meanings(
    value: str, meanings: str
) -> None:
    """Without quotes the value is a problem with line and path.

    In quotes it is text, also as a key.
    """
    action = "write the intended value, text in quotes"
    assert faults_of(f"a:\n  - b: {value}\n") == [
        f"x.yaml:2: a[0].b: {value} can mean {meanings}: {action}"
    ]
    assert faults_of(f"{value}: b\n") == ['x.yaml:1: a key should be text: write it in "quotes"']
    assert read(f"a: \"{value}\"\n'{value}': |-\n  {value}\n").data == {"a": value, value: value}


@pytest.mark.parametrize("content", ["a:\n", "a: [b, ]\nc:\n", "a: &x\nb: *x\n", "- \n- a\n"])
def test_read_document_reports_key_without_a_value(content: str) -> None:
    """A rule whose condition was deleted by mistake would otherwise select all records."""
    assert faults_of(content)
    assert "the key has no value: write null for no value" in faults_of(content)[0]


def test_read_document_reports_number_that_cannot_be_stored_exactly() -> None:
    """Otherwise the limit for an amount of money could be rounded without a message."""
    [line] = faults_of("a: 99999999999999.995\n")
    assert "has more digits than a number can store" in line
    assert read("a: 0.1\nb: 1.5e+3\nc: 9007199254740993").data == {
        "a": 0.1,
        "b": 1500.0,
        "c": 9007199254740993,
    }


@pytest.mark.parametrize(
    "text", ["12:30", "09:00", "1:30.5", "190:20:30", "=", "y", "N", "0.1.2", "1-2", "2026-11-25"]
)
def test_unquoted_time_of_day_and_plain_words_in_yaml_are_read_as_text(text: str) -> None:
    """YAML 1.1 reads a time such as 12:30 as a number of base 60, which no author intends."""
    assert read(f"a: {text}\n{text}: a\n").data == {"a": text, text: "a"}


def test_read_document_accepts_each_yaml_1_2_spelling_of_true_false_and_null() -> None:
    """True, false and null are read in each spelling of the core schema."""
    assert read("[true, True, TRUE, false, False, FALSE]").data == [True] * 3 + [False] * 3
    assert read("[null, Null, NULL, ~]").data == [None] * 4


def test_read_document_returns_complete_data_and_all_faults_if_values_are_ambiguous() -> None:
    """The rest of the document is read, and the rules of the pack are checked as well."""
    document = read("a: 010\nb: [yes, 1]\n")
    assert document.data == {"a": "010", "b": ["yes", 1]}
    assert document.refused == {("a",), ("b", 0)}
    assert len(document.faults) == 2


def test_read_document_reports_all_faults_of_a_file() -> None:
    """A duplicate key must not hide the faulty tag that follows it."""
    assert len(faults_of("a: 1\na: 2\nb: !x y\n3: z\n")) == 3


@pytest.mark.parametrize("form", ["lists", "merges"])
def test_yaml_with_aliases_for_billions_of_values_is_reported_as_fault_within_ten_seconds(
    form: str,
) -> None:
    """Aliases that would expand to billions of values are refused within seconds."""
    layers = ["l0: &l0 {k: v}" if form == "merges" else "l0: &l0 [x]"]
    for at in range(1, 40):
        below = ", ".join([f"*l{at - 1}"] * 9)
        layers.append(
            f"l{at}: &l{at} {{<<: [{below}]}}" if form == "merges" else f"l{at}: &l{at} [{below}]"
        )
    started = time.monotonic()
    assert "unfold" in faults_of("\n".join(layers))[0]
    assert time.monotonic() - started < 10


def test_yaml_merge_keys_never_replace_own_keys_or_keys_merged_earlier() -> None:
    """By YAML 1.1, a mapping's own keys take precedence over merged keys.

    Of several merged mappings, the first one takes precedence.
    """
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  z: 3\n  <<: [*a, *b]\n"
    document = read(text)
    assert document.data["c"] == {"x": 1, "y": 1, "z": 3}
    assert document.lines[("c", "z")] == 4


def test_dates_are_read_as_text() -> None:
    """An edition such as 2025-05-01 needs no quotes. An impossible date causes no YAML error."""
    assert read("a: 2025-05-01\nb: 2026-13-45").data == {"a": "2025-05-01", "b": "2026-13-45"}


def test_read_document_accepts_byte_order_mark_at_the_start_of_a_file() -> None:
    """Some Windows editors write a byte order mark at the beginning of a file."""
    assert read_document(b"\xef\xbb\xbfa: 1\n", "x.yaml").data == {"a": 1}


def test_read_bytes_raises_error_for_folder_or_missing_file_or_file_above_5_mib(tmp_path) -> None:
    """A huge file must be refused without reading it as a whole."""
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    for path, expected in [
        (tmp_path, "x.yaml: is not a file"),
        (tmp_path / "absent.yaml", "x.yaml: is not a file"),
        (huge, "x.yaml: is larger than 5 MiB"),
    ]:
        with pytest.raises(DocumentError) as caught:
            read_bytes(path, "x.yaml")
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("loc", "text"),
    [
        ((), ""),
        (("collections", 3, "fields", 0, "name"), "collections[3].fields[0].name"),
        ((0, "title", "zh-CN"), "[0].title.zh-CN"),
        (("collections", "订单 2024"), 'collections."订单 2024"'),
        (("collections", "客户"), "collections.客户"),
        (("collections", "a.b"), 'collections."a.b"'),
        (("",), '.""'.removeprefix(".")),
    ],
)
def test_path_text_puts_keys_with_dots_or_spaces_in_quotes(loc, text: str) -> None:
    """Names that could be misread as several steps are quoted."""
    assert path_text(loc) == text
