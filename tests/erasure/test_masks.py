"""A mask leaves what its rule says and no more, and the second opinion notices a wrong one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from include.erasure.masks import (
    Mask,
    Shape,
    assignments,
    masked,
    masks_of,
    shapes,
    shows,
    shows_too_much,
    to_mask,
)
from include.erasure.places import Place
from include.local.postgres import EmbeddedPostgres
from include.policy.retention import MaskKind, RetentionRule
from include.services.errors import UsageError

KINDS: tuple[MaskKind, ...] = get_args(MaskKind)
NOW = datetime(2026, 11, 24, tzinfo=UTC)
T = Place("public", "t")
BLANK = r" \x01-\x1f\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff"
UNITS = ("单元", "單元", "室", "栋", "棟", "幢", "座", "楼", "樓", "层", "層", "户", "戶", "房")
COUNTED = (
    "0123456789０１２３４５６７８９〇零一二三四五六七八九十百千两兩壹贰叁肆伍陆柒捌玖拾佰甲乙丙丁戊己庚辛壬癸"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
WIDE = str.maketrans("０１２３４５６７８９", "0123456789")


def name(text: str) -> str:
    """Oracle of the mask of names, character by character."""
    while text and re.match(f"[{BLANK}]", text[0]):
        text = text[1:]
    while text and re.match(f"[{BLANK}]", text[-1]):
        text = text[:-1]
    kept = text[:1] if len(text) > 1 and text[0] != "*" else ""
    return kept + "**" if text else ""


def phone(text: str) -> str:
    """Oracle of the mask of phone numbers."""
    if not text:
        return ""
    digits = [one for one in text.translate(WIDE) if one in "0123456789*"]
    if len(digits) < 7:
        return "*" * 6
    visible = len(digits) - 6
    last = min(2, visible)
    first = min(3, visible - last)
    for at in range(first, len(digits) - last):
        digits[at] = "*"
    plus = "+" if re.match(f"[{BLANK}]*[+＋]", text) else ""
    return plus + "".join(digits)


def parts(text: str) -> list[int]:
    """Where what counts a part of a building begins: 3 of 3单元, A of A 座."""
    found = []
    for at, one in enumerate(text):
        rest = text[at + 1 :].lstrip(" ")
        if one in COUNTED and rest.startswith(UNITS):
            while at and text[at - 1] in COUNTED:
                at -= 1
            found.append(at)
    return found


def address(text: str) -> str:
    """Oracle of the mask of addresses."""
    is_digit = [one in "0123456789０１２３４５６７８９" for one in text]
    if not text or (text.endswith("**") and not any(is_digit) and not parts(text)):
        return text
    for at in range(1, len(text)):
        if is_digit[at - 1] and text[at] in "号號":
            kept, number = text[: at + 1], at
            while number and is_digit[number - 1]:
                number -= 1
            before = text[:number]
            room = (
                before.rstrip(" ").endswith((*UNITS, "大厦", "公寓"))
                or bool(re.search(r"[A-Za-z#/.\-] *$", before))
                or (before.endswith(" ") and before.rstrip(" ")[-1:] in tuple("0123456789０１２３"))
                or text[at + 1 :].lstrip(" ").startswith(("单元", "單元", "室", "户", "戶", "房"))
            )
            if not room and not parts(kept):
                return kept + "**"
            break
    cuts = parts(text)
    if any(is_digit):
        first = is_digit.index(True)
        while first and re.match(r"[A-Za-z#\-]", text[first - 1]):
            first -= 1
        cuts.append(first)
    return text[: min(cuts, default=len(text) // 2)] + "**"


ORACLES: dict[str, Callable[[str], str]] = {"name": name, "phone": phone, "address": address}


@pytest.fixture(scope="module")
def anywhere(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.conninfo("postgres")) as conn:
        yield conn


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database) as made:
        yield made


def asked(
    conn: psycopg.Connection, values: Sequence[str | None], what: sql.Composable
) -> list[Any]:
    query = sql.SQL("SELECT {} FROM unnest({}::text[]) WITH ORDINALITY AS t(v, n) ORDER BY n")
    found = conn.execute(query.format(what, sql.Literal(list(values)))).fetchall()
    conn.rollback()
    return [row[0] for row in found]


def mask(conn: psycopg.Connection, values: Sequence[str | None], kind: MaskKind) -> list[Any]:
    return asked(conn, values, masked(sql.Identifier("t", "v"), kind))


def judge(conn: psycopg.Connection, values: Sequence[str | None], kind: MaskKind) -> list[Any]:
    return asked(conn, values, shows_too_much(sql.Identifier("t", "v"), kind))


ANY = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
CHINESE = st.text(
    "王小明欧阳浙江省杭州市西湖区人民路一号楼单元室弄栋座甲AB-０１２３0123456789 　*\u200b",
    max_size=24,
)
DIALLED = st.text("0123456789０９+＋-() *转", max_size=24)
WESTERN = st.sampled_from(["Jo", "Mary Ann O'Neil", "12 Main St, Apt 4", "\n1\n号\n", "%s {0} \\1"])
TEXTS = st.lists(st.one_of(ANY, CHINESE, DIALLED, WESTERN), max_size=40)


@pytest.mark.parametrize("kind", ["name", "phone", "address"])
@given(values=TEXTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masks_are_those_of_the_oracle_and_nothing_goes_back(
    anywhere: psycopg.Connection, kind: MaskKind, values: list[str]
):
    """Masking again changes nothing, and what is masked never shows too much."""
    once = mask(anywhere, values, kind)
    assert once == [ORACLES[kind](one) for one in values]
    assert mask(anywhere, once, kind) == once
    assert not any(judge(anywhere, once, kind))


@given(values=TEXTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_mask_must_hide_is_hidden(anywhere: psycopg.Connection, values: list[str]):
    """One character of a name, six digits of a number, whatever comes after an address's house."""
    for before, after in zip(values, mask(anywhere, values, "name"), strict=True):
        core = before.strip()
        assert not core or after.rstrip("*") != core or core.endswith("*")
        assert len(after.rstrip("*")) <= 1
    for before, after in zip(values, mask(anywhere, values, "phone"), strict=True):
        assert sum(one.isdigit() for one in after) <= 5
        assert not before or after.count("*") >= 6
    for before, after in zip(values, mask(anywhere, values, "address"), strict=True):
        assert before.startswith(after.removesuffix("**"))


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("name", "王小明", "王**"),
        ("name", "王", "**"),
        ("name", "王 ", "**"),
        ("name", "王\x1f", "**"),
        ("name", "欧阳修", "欧**"),
        ("name", "𠮷田", "𠮷**"),
        ("name", "O'Neil", "O**"),
        ("name", "", ""),
        ("phone", "13800138000", "138******00"),
        ("phone", "+86 138-0013-8000", "+861********00"),
        ("phone", "０１０－１２３４５６７８", "010******78"),
        ("phone", "1234567", "******7"),
        ("phone", "12345678", "******78"),
        ("phone", "110", "******"),
        ("phone", "none", "******"),
        ("address", "杭州市人民路12号3单元502室", "杭州市人民路12号**"),
        ("address", "杭州市人民路12弄3单元502室", "杭州市人民路**"),
        ("address", "3单元502室12号", "**"),
        ("address", "杭州市朝阳村", "杭州市**"),
        ("address", "12 Main Street", "**"),
        ("address", "村", "**"),
        ("address", "时代大厦A座1203号", "时代大厦**"),
        ("address", "时代大厦 A 座 1203号", "时代大厦 **"),
        ("address", "时代大厦A1203号", "时代大厦**"),
        ("address", "时代大厦1203号", "时代大厦**"),
        ("address", "时代大厦东座1203号", "时代大厦东座**"),
        ("address", "B栋602号", "**"),
        ("address", "甲单元502号", "**"),
        ("address", "人民路甲单元五〇二号", "人民路**"),
        ("address", "3-2-502号", "**"),
        ("address", "幸福小区3－502号", "幸福小区**"),
        ("address", "幸福小区3 502号", "幸福小区**"),
        ("address", "幸福小区502号房", "幸福小区**"),
        ("address", "人民路十二号三单元五零二室", "人民路十二号**"),
        ("address", "人民路12号3-2-502号", "人民路12号**"),
        ("address", "人民路 12号5号楼", "人民路 12号**"),
    ],
)
def test_examples_of_masks(anywhere: psycopg.Connection, kind: MaskKind, value: str, wanted: str):
    """As a reader of the standard expects them."""
    assert mask(anywhere, [value], kind) == [wanted]


STREETS = st.sampled_from(
    ["", "杭州市人民路", "人民路12号", "时代大厦", "幸福小区5号楼", "人民路十二号"]
)
COUNTS = st.sampled_from(["3", "１２", "A", "B2", "甲", "二", "十一", "c"])
ROOMS = st.builds(
    "{}{}{}{}{}".format, COUNTS, st.sampled_from(["", " "]), st.sampled_from(UNITS),
    st.sampled_from(["", " ", "-"]), st.sampled_from(["7777号", "7777", "7777室", "7777号房"]),
) | st.sampled_from(["3-7777号", "3-2-7777号", "A7777号", "3#7777号", "3 7777号"])  # fmt: skip


@given(homes=st.lists(st.tuples(STREETS, ROOMS), min_size=1, max_size=40))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_room_is_hidden_however_it_is_written(
    anywhere: psycopg.Connection, homes: list[tuple[str, str]]
):
    """GB/T 41833: unit and room are hidden; and the second opinion objects to both."""
    whole = [street + room for street, room in homes]
    for (street, _), after in zip(homes, mask(anywhere, whole, "address"), strict=True):
        assert "7777" not in after
        assert street.startswith(after.removesuffix("**"))
    assert all(judge(anywhere, [one + "**" for one in whole], "address"))


@pytest.mark.parametrize("kind", KINDS)
def test_null_stays_null_and_shows_nothing(anywhere: psycopg.Connection, kind: MaskKind):
    """Nothing is made up where there was nothing."""
    assert mask(anywhere, [None], kind) == [None]
    assert judge(anywhere, [None, ""], kind) == [False, False]


@pytest.mark.parametrize(
    ("kind", "fine", "wrong"),
    [
        ("name", ["王**", "欧阳**", "**"], ["王小明", "王", "王*明", "欧阳修**"]),
        (
            "phone",
            ["138******00", "******7", "+86*********00", "******"],
            ["13800138000", "138****8000", "138*****000", "110", "138******00 ", "13 8******00"],
        ),
        (
            "address",
            ["浙江省杭州市人民路12号5号楼**", "人民路12号**", "人民路**", "人民**", "时代大厦**"],
            [
                "人民路12号", "人民路12号502", "人民路12号3单元**", "人民路12弄**", "3室12号**",
                "时代大厦A座1203号**", "时代大厦A座**", "B栋602号**", "甲单元502号**",
                "3-2-502号**", "东座1203号**", "时代大厦1203号**", "人民路12号502号**",
                "小区3 502号**", "十二号三单元**", "人民路b 座**",
            ],
        ),
        ("erase", [""], ["x", "**"]),
    ],
)  # fmt: skip
def test_the_second_opinion_knows_masks_from_what_is_none(
    anywhere: psycopg.Connection, kind: MaskKind, fine: list[str], wrong: list[str]
):
    """The sample's own masks, which keep compound surnames and buildings, are fine too."""
    assert judge(anywhere, fine, kind) == [False] * len(fine)
    assert judge(anywhere, wrong, kind) == [True] * len(wrong)


def test_records_are_masked_in_their_table(conn: psycopg.Connection):
    """Columns without room get stars only, what must be filled is emptied, the stamp stays."""
    conn.execute(
        """CREATE DOMAIN label AS varchar(8) NOT NULL; CREATE DOMAIN longer AS label;
        CREATE TABLE t (id int, name varchar(2), phone char(5), address longer,
            note text NOT NULL, born date, masked_at timestamptz);
        INSERT INTO t VALUES (1, '王明', '110', '人民路12345', 'x', '1990-01-01', NULL),
            (2, '李', NULL, '北京人民路12号', '', NULL, '2026-01-01+00'),
            (3, NULL, '12345', '123456号', '', NULL, NULL);"""
    )
    kinds: dict[str, MaskKind] = {
        "name": "name", "phone": "phone", "address": "address", "note": "erase", "born": "erase",
        "gone": "name",
    }  # fmt: skip
    rule, found = Mask(kinds, "masked_at"), shapes(conn, T)
    assert found["address"] == Shape(text=True, limit=8, filled=True)
    assert found["born"] == Shape(text=False, limit=None, filled=False)
    pending = sql.SQL("SELECT id FROM t WHERE {} ORDER BY id")
    assert conn.execute(pending.format(shows(rule, found))).fetchall() == [(1,), (2,), (3,)]
    change = sql.SQL("UPDATE t SET {}").format(assignments(rule, found, sql.Literal(NOW)))
    for _ in range(2):
        conn.execute(change)
        rows = conn.execute("SELECT name, phone, address, note, born FROM t ORDER BY id").fetchall()
        assert rows == [
            ("**", "*****", "人民路**", "", None),
            ("**", None, "北京人民路**", "", None),
            (None, "*****", "**", "", None),
        ]
    assert conn.execute(pending.format(to_mask(rule, found))).fetchall() == []
    stamps = conn.execute("SELECT masked_at FROM t ORDER BY id").fetchall()
    assert [one for (one,) in stamps] == [NOW, datetime(2026, 1, 1, tzinfo=UTC), NOW]


def test_a_record_without_stamp_is_still_to_be_masked(conn: psycopg.Connection):
    """Whatever it looks like; without a stamp in the table only the look counts."""
    conn.execute("CREATE TABLE t (name text, masked_at date); INSERT INTO t VALUES ('王**')")
    found = shapes(conn, T)
    for stamp, wanted in (("masked_at", 1), (None, 0), ("absent", 0)):
        condition = to_mask(Mask({"name": "name"}, stamp), found)
        query = sql.SQL("SELECT count(*) FROM t WHERE {}").format(condition)
        assert conn.execute(query).fetchone() == (wanted,)


@pytest.mark.parametrize(("kind", "column"), [("erase", "born"), ("phone", "number")])
def test_what_a_column_cannot_hold_is_an_error_that_names_it(
    conn: psycopg.Connection, kind: MaskKind, column: str
):
    """Before anything is changed."""
    conn.execute("CREATE TABLE t (born date NOT NULL, number bigint)")
    with pytest.raises(UsageError, match=f"column {column}"):
        assignments(Mask({column: kind}), shapes(conn, T), sql.SQL("now()"))


def test_masks_come_from_the_schedule():
    """Only classes that mask have one."""
    common = {"collection": "c", "clock": "at", "period": "P1D", "basis": "business"}
    rules = [
        RetentionRule.model_validate({"class": "a", "action": "delete", **common}),
        RetentionRule.model_validate(
            {"class": "b", "action": "mask", "mask": {"x": "name"}, "stamp": "s", **common}
        ),
    ]
    assert masks_of(rules) == {"b": Mask({"x": "name"}, "s")}
