"""Tests that a typed reason keeps its words and loses the numbers and addresses of customers."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.approvals.reasons import (
    AUTOMATIC,
    MAX_REASON_LENGTH,
    has_personal_number,
    has_words,
    reason_text,
    redact_reason,
)
from include.reports.i18n import Translator

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
    ("typed", "redacted"),
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
def test_redact_reason_replaces_only_phone_numbers_id_numbers_and_mail_addresses(
    typed: str, redacted: str | None
) -> None:
    assert redact_reason(typed) == (typed if redacted is None else redacted)


@settings(max_examples=300)
@given(st.data())
def test_redact_reason_redacts_mobile_or_id_number_in_any_spelling(data: st.DataObject) -> None:
    number = data.draw(st.sampled_from([MOBILE, f"86{MOBILE}", ID_NUMBER[:-1] + "1"]))
    written = "".join(
        data.draw(st.sampled_from(WRITTEN))(digit) + data.draw(BETWEEN) for digit in number
    )
    redacted = redact_reason(f"the record of {written} is wrong")
    digits = re.sub(r"\D", "", unicodedata.normalize("NFKC", redacted))
    assert digits == ""
    assert redacted.startswith("the record of ")
    assert redacted.endswith(" is wrong")


@settings(max_examples=200)
@given(st.text(max_size=600))
def test_redact_reason_result_is_not_longer_than_the_maximum_length(typed: str) -> None:
    once = redact_reason(typed)
    assert len(once) <= MAX_REASON_LENGTH
    assert not re.search(r"\d{6}", unicodedata.normalize("NFKC", once))


@given(st.text(st.characters(exclude_categories=["Nd", "No", "Nl", "Cs", "Cc"]), max_size=80))
def test_redact_reason_keeps_words_of_text_without_numbers_or_mail_addresses(typed: str) -> None:
    words = typed.replace("@", "").replace("＠", "").replace("﹫", "")
    if "(at)" not in unicodedata.normalize("NFKC", words).casefold().replace(" ", ""):
        assert redact_reason(words) == " ".join(words.split())


def test_long_reason_is_redacted_quickly() -> None:
    redact_reason("1 " * 250_000)
    redact_reason("a" * 100_000)


@pytest.mark.parametrize(
    "typed", [MOBILE, "…", " - ", "ada@example.com", "１３８００１３８０００。"]
)
def test_has_words_is_false_for_text_of_only_numbers_mail_addresses_or_punctuation(
    typed: str,
) -> None:
    assert not has_words(typed)
    assert has_words(f"{typed} 有误")


@pytest.mark.parametrize(
    "name",
    [
        MOBILE,
        f"IN_{MOBILE}",
        f"86{MOBILE}.csv",
        f"0086-{MOBILE}",
        "IN-138-0013-8000",
        "138_0013_8000",
        "".join(WRITTEN[1](digit) for digit in MOBILE),
        ID_NUMBER,
        ID_NUMBER.lower(),
        f"form/{ID_NUMBER}/2",
        "530102-19200508-011X",
        "530102192005080119",
    ],
)
def test_has_personal_number_is_true_for_mobile_and_id_numbers(name: str) -> None:
    assert has_personal_number(name)


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
def test_has_personal_number_is_false_for_dates_and_serial_numbers(name: str) -> None:
    assert not has_personal_number(name)


def test_redact_reason_shortens_text_to_default_or_given_max_length() -> None:
    words = "seen at the counter, " * 40 + "139 1234 5678"
    assert len(redact_reason(words)) == MAX_REASON_LENGTH
    assert redact_reason(words, max_length=2_000) == "seen at the counter, " * 40 + "…"


@pytest.mark.parametrize("typed", ["approved", "none", "Incident", "资料齐全"])
def test_typed_reason_is_shown_as_typed_in_both_languages(typed: str) -> None:
    """The catalogue has translations of "approved", "none" and "Incident"."""
    assert {Translator(locale).text(reason_text(typed)) for locale in ("en", "zh_CN")} == {typed}


def test_automatic_reason_of_sample_company_is_translated() -> None:
    assert Translator("en").text(reason_text(AUTOMATIC)) == AUTOMATIC
    assert Translator("zh_CN").text(reason_text(AUTOMATIC)) != AUTOMATIC
