"""Reasons that people type: their words stay, a customer's numbers and addresses do not."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.approvals.reasons import (
    LONGEST_REASON,
    names_a_person,
    says_something,
    value_free_reason,
)

MOBILE = "13800138000"
ID_NUMBER = "53010219200508011X"
WRITTEN = [
    lambda digit: digit,
    lambda digit: chr(ord("０") + int(digit)),
    lambda digit: chr(0x0660 + int(digit)),  # Arabic-Indic
    lambda digit: f"{digit}\ufe0f\u20e3",  # keycaps
    lambda digit: "⓪①②③④⑤⑥⑦⑧⑨"[int(digit)],
]
BETWEEN = st.sampled_from(
    ["", " ", "-", "－", "—", "–", "−", ".", "·", " - ", "  ", "\u3000", "\u200b", ")", "(", "/"]
)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("表单缺少详细地址，请补充。", "表单缺少详细地址，请补充。"),
        ("3 forms of 30 lack a street; rows 7, 12 and 25", None),
        ("records 3, 4, 5, 6, 7 and 8 are wrong", None),
        ("see clause 5.2, batch IN-00003", None),
        (f"电话{MOBILE}有误", "电话…有误"),
        ("电话１３８－００１３－８０００有误", "电话…有误"),
        ("call +86 138 0013 8000!", "call +…!"),
        ("call (+86)138-0013-8000!", "call (+…!"),
        ("138,0013,8000 is no phone", "… is no phone"),
        ("1 3 8 0 0 1 3 8 0 0 0", "…"),
        ("0871-6512 3456 is a landline", "… is a landline"),
        ("138\u31640013\ufe0f8\uffa0000 is a phone", "… is a phone"),
        (f"ID {ID_NUMBER} has no street", "ID … has no street"),
        ("ID 530102 19200508 011x has none", "ID … has none"),
        ("身份证５３０１０２１９２００５０８０１１Ｘ重复", "身份证…重复"),
        ("ada@example.com bounced", "… bounced"),
        ("write to ada＠example．com, twice", "write to …, twice"),
        ("write to ada @ example.com, twice", "write to …, twice"),
        ("write to ada (at) example.com, twice", "write to …, twice"),
        ("two\n lines\t here", "two lines here"),
        ("ﬁrst：全角，标点（保留）", "ﬁrst：全角，标点（保留）"),
    ],
)
def test_words_stay_and_values_go(typed: str, kept: str | None) -> None:
    """Lists of few small numbers are no phone; full-width punctuation is kept as it was typed."""
    assert value_free_reason(typed) == (typed if kept is None else kept)


@settings(max_examples=300)
@given(st.data())
def test_a_number_is_recognised_however_it_is_written(data: st.DataObject) -> None:
    """Phones with and without a country code, ID numbers."""
    number = data.draw(st.sampled_from([MOBILE, f"86{MOBILE}", ID_NUMBER[:-1] + "1"]))
    written = "".join(
        data.draw(st.sampled_from(WRITTEN))(digit) + data.draw(BETWEEN) for digit in number
    )
    kept = value_free_reason(f"the record of {written} is wrong")
    digits = re.sub(r"\D", "", unicodedata.normalize("NFKC", kept))
    assert digits == ""
    assert kept.startswith("the record of ")
    assert kept.endswith(" is wrong")


@settings(max_examples=200)
@given(st.text(max_size=600))
def test_whatever_is_typed_has_an_end(typed: str) -> None:
    """No more than the column takes, and a second look changes nothing more."""
    once = value_free_reason(typed)
    assert len(once) <= LONGEST_REASON
    assert not re.search(r"\d{6}", unicodedata.normalize("NFKC", once))


@given(st.text(st.characters(exclude_categories=["Nd", "No", "Nl", "Cs", "Cc"]), max_size=80))
def test_words_without_numbers_are_kept(typed: str) -> None:
    """But for white space, which becomes one space."""
    words = typed.replace("@", "").replace("＠", "").replace("﹫", "")
    if "(at)" not in unicodedata.normalize("NFKC", words).casefold().replace(" ", ""):
        assert value_free_reason(words) == " ".join(words.split())


def test_a_long_answer_costs_no_time() -> None:
    """Digits and separators without end are one look."""
    value_free_reason("1 " * 250_000)
    value_free_reason("a" * 100_000)


@pytest.mark.parametrize(
    "typed", [MOBILE, "…", " - ", "ada@example.com", "１３８００１３８０００。"]
)
def test_a_number_alone_is_no_reason(typed: str) -> None:
    """Nothing would be left for whoever reads it."""
    assert not says_something(typed)
    assert says_something(f"{typed} 有误")


@pytest.mark.parametrize(
    "name",
    [
        MOBILE,
        f"IN_{MOBILE}",
        f"86{MOBILE}.csv",
        f"0086-{MOBILE}",
        "IN-138-0013-8000",
        "138_0013_8000",
        "".join(WRITTEN[1](one) for one in MOBILE),
        ID_NUMBER,
        ID_NUMBER.lower(),
        f"form/{ID_NUMBER}/2",
        "530102-19200508-011X",
        "530102192005080119",
    ],
)
def test_a_name_that_holds_a_number_of_a_person_is_told(name: str) -> None:
    """However the digits are written, where they are written as such a number."""
    assert names_a_person(name)


@pytest.mark.parametrize(
    "name",
    [
        "IN-000013",
        "2026-11-25",
        "HZ-2026-11-19-0930-00001",
        "20261119-093000-0001",
        "20261119093000000123",
        "20261119093000123",
        "202611190930001234",
        "202611201012150001",  # on the 20th, at 10:12:15: 2010-12-15 in an ID number
        "IN-15-2026-00001",
        "1732521600",
        "1732521600000",
        "8d3f2a60-13b5-4c11-9d3e-139123456789",
        "MD1380013800",
        "0138001380001",
        "ST139-2024-1125",
        "store-151-20241125",
        "139_20261125",
        "2026-11-25-151-0001-0002",
    ],
)
def test_dates_and_running_numbers_name_nobody(name: str) -> None:
    """Batches are named by such; each would be a finding every day."""
    assert not names_a_person(name)


def test_longer_words_are_kept_where_the_caller_has_room() -> None:
    """A note of workpapers may be longer than a reason; its numbers are blotted all the same."""
    words = "seen at the counter, " * 40 + "139 1234 5678"
    assert len(value_free_reason(words)) == LONGEST_REASON
    assert value_free_reason(words, longest=2_000) == "seen at the counter, " * 40 + "…"
