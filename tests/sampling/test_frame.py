"""Frames: every item a line, in an order that everybody gets again, or no frame at all."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.frame import PIECE, WHOLE, Frame, Item, freeze, pick, plain
from include.services.errors import ControlFailed, UsageError
from tests.sampling.rig import Rig, third_quarter

ODD = [
    "'single' \"double\"",
    "comma,semicolon;pipe|",
    "tab\there",
    "line\nfeed",
    "carriage\r\nreturn",
    "back\\slash",
    "\\N",
    "\\.",
    "\\t",
    "NULL",
    "中文编号",
    "\b\f\v",
    " blanks ",
    "%s {0} $1 :x",
    "k" * (PIECE + 1000),
    "é",
    "e\u0301",
    "😀",
]


def rows(values: list[str]) -> str:
    """A SELECT of texts as ids."""
    quoted = ", ".join("('" + one.replace("'", "''") + "')" for one in values)
    return f"SELECT v AS id FROM (VALUES {quoted}) AS t (v)"


def picked(content: bytes, lines: set[int]) -> list[Item]:
    return list(pick(io.BytesIO(content), {WHOLE: lines}, stratified=False))


@pytest.fixture(scope="module")
def asked(shop: Rig) -> Rig:
    """Frames leave nothing behind: one shop does for all."""
    return shop


@pytest.mark.parametrize(
    ("ids", "lines"),
    [
        ("(10::bigint), (9), (-1), (9223372036854775807)", ["-1", "9", "10", str(2**63 - 1)]),
        ("('b'::text), ('a'), ('B'), ('A'), ('')", ["", "A", "B", "a", "b"]),
        (
            "('00000000-0000-0000-0000-00000000000b'::uuid), "
            "('00000000-0000-0000-0000-00000000000A')",
            [
                "00000000-0000-0000-0000-00000000000a",
                "00000000-0000-0000-0000-00000000000b",
            ],
        ),
        ("(date '2026-07-02'), (date '2026-07-01')", ["2026-07-01", "2026-07-02"]),
        ("(ROW('n', 2)), (ROW('n', 10)), (ROW('N', 1))", ["(N,1)", "(n,10)", "(n,2)"]),
        ("('b'::varchar(9)), ('a')", ["a", "b"]),
    ],
    ids=["bigint", "text", "uuid", "date", "composite", "varchar"],
)
def test_ids_of_every_type_stand_in_an_order_of_their_own(
    asked: Rig, ids: str, lines: list[str]
) -> None:
    """Numbers by their value, texts and what has texts inside by their bytes."""
    found = asked.frame(f"SELECT v AS id FROM (VALUES {ids}) AS t (v)")
    assert found.lines == lines
    assert found.frame.strata == {WHOLE: len(lines)}
    assert [one.key for one in picked(found.content, set(range(1, len(lines) + 1)))] == lines


def test_an_id_may_hold_anything(asked: Rig) -> None:
    """A line is an item whatever its id holds, and the id is got back as it was."""
    asked.sql("CREATE TABLE odd (v text)")
    for one in ODD:
        asked.sql("INSERT INTO odd VALUES (%s)", one)
    found = asked.frame("SELECT v AS id FROM odd")
    assert found.frame.items == len(found.lines) == len(ODD)
    keys = [one.key for one in picked(found.content, set(range(1, len(ODD) + 1)))]
    assert keys == sorted(ODD, key=str.encode)


def test_texts_are_ordered_by_their_bytes_whatever_the_collation(asked: Rig) -> None:
    """Another server, or another version of its libraries, gives the same frame."""
    mixed = ["b", "B", "a", "A", "ä", "z", "_", "1", "10", "2", "中", "文"]
    usable = "collencoding IN (-1, pg_char_to_encoding('UTF8')) AND collprovider <> 'i'"
    for (collation,) in asked.sql(f"SELECT collname FROM pg_collation WHERE {usable}"):
        query = f'SELECT v COLLATE "{collation}" AS id FROM ({rows(mixed)}) AS t (v)'
        assert asked.frame(query).lines == sorted(mixed, key=str.encode)


def test_the_order_of_an_enumeration_is_that_of_its_words(asked: Rig) -> None:
    """Its own order is the database's, and could be another in a copy."""
    asked.sql("CREATE TYPE size AS ENUM ('small', 'big', 'Huge')")
    ids = "SELECT v::size AS id FROM (VALUES ('small'), ('big'), ('Huge')) AS t (v)"
    assert asked.frame(ids).lines == ["Huge", "big", "small"]


def test_an_empty_population_is_an_empty_frame(asked: Rig) -> None:
    """No line, no stratum, no fault."""
    for strata in (False, True):
        query = "SELECT 1 AS id, 'a' AS stratum WHERE false"
        found = asked.frame(query, strata=strata)
        assert (found.content, found.frame.items, found.frame.strata) == (b"", 0, {})


@pytest.mark.parametrize("key", ["1", "", "\n"])
def test_a_population_may_have_one_item(asked: Rig, key: str) -> None:
    """Also one whose id is empty: that is no missing one."""
    found = asked.frame(rows([key]))
    assert found.frame == Frame(found.frame.sha256, 1, {WHOLE: 1})
    assert picked(found.content, {1}) == [Item(1, 1, key, WHOLE)]


@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("type_", ["bigint", "text", "numeric"])
def test_an_item_without_an_id_is_refused(asked: Rig, type_: str, strata: bool) -> None:
    r"""The text ``\N`` is an id like others; NULL is none, however many there are."""
    for missing in ("(NULL)", "(NULL), (NULL)"):
        query = f"SELECT v::{type_} AS id, 'a' AS stratum FROM (VALUES (2), {missing}) AS t (v)"
        with pytest.raises(ControlFailed, match=r"openings|branches") as caught:
            asked.frame(query, strata=strata)
        assert "has items without an id" in caught.value.message


@pytest.mark.parametrize(
    "ids",
    [
        "(1::bigint), (2), (1)",
        "('same'), ('other'), ('same')",
        "(1.0), (1.00), (1.0)",
        "(interval '1 day'), (interval '24 hours'), (interval '1 day')",
        "(ROW(1.0)), (ROW(1.00)), (ROW(1.0))",
        "('a'), ('A'), ('a')",
    ],
    ids=["bigint", "text", "numeric", "interval", "composite", "case"],
)
@pytest.mark.parametrize("strata", [False, True])
def test_an_id_that_stands_twice_is_refused(asked: Rig, ids: str, strata: bool) -> None:
    """It would be drawn twice as easily; also where an equal one of another spelling is between."""
    query = f"SELECT v AS id, 'a' AS stratum FROM (VALUES {ids}) AS t (v)"
    with pytest.raises(ControlFailed, match="has an id more than once"):
        asked.frame(query, strata=strata)


def test_an_id_in_two_strata_is_refused(asked: Rig) -> None:
    """It is one item all the same."""
    query = "SELECT v AS id, s AS stratum FROM (VALUES (1, 'a'), (2, 'a'), (1, 'b')) AS t (v, s)"
    with pytest.raises(ControlFailed, match="has an id more than once"):
        asked.frame(query, strata=True)


def test_an_id_that_stands_twice_across_two_pieces_is_noticed(asked: Rig) -> None:
    """Wherever the stream is cut: each of these ids fills most of a piece."""
    long = "repeat('x', 100000)"
    for twice in range(1, 8):
        ids = f"SELECT {long} || g AS id FROM generate_series(1, 8) AS g"
        assert asked.frame(ids).frame.items == 8
        with pytest.raises(ControlFailed, match="has an id more than once"):
            asked.frame(f"{ids} UNION ALL SELECT {long} || {twice}")


def test_strata_may_have_odd_names_or_none(asked: Rig) -> None:
    """NULL and the empty text are one stratum without a name; the others are told apart."""
    names = ["a", "A", "tab\there", "line\nfeed", "back\\slash", "\\N", "北京", "a,b", "", None]
    quoted = ", ".join(
        f"({at}, " + ("NULL" if one is None else "'" + one + "'") + ")"
        for at, one in enumerate(names)
    )
    query = f"SELECT v AS id, s AS stratum FROM (VALUES {quoted}) AS t (v, s)"
    found = asked.frame(query, strata=True)
    assert found.frame.strata == {one: 1 for one in names if one} | {"": 2}
    wanted = {one: {1} for one in names if one} | {"": {1, 2}}
    items = list(pick(io.BytesIO(found.content), wanted, stratified=True))
    assert [one.stratum for one in items] == [one or "" for one in names]
    assert [one.key for one in items] == [str(at) for at in range(len(names))]


def test_strata_need_not_be_texts(asked: Rig) -> None:
    """A number or a truth value is printed as PostgreSQL prints it."""
    query = "SELECT v AS id, v % 2 = 0 AS stratum FROM generate_series(1, 5) AS t (v)"
    assert asked.frame(query, strata=True).frame.strata == {"false": 3, "true": 2}


def test_the_quarter_is_half_open_in_the_packs_timezone(rig: Rig) -> None:
    """Its first moment belongs to it, the first one of the next does not."""
    rig.sql("TRUNCATE log")
    for number, moment in enumerate(
        ("2026-06-30 15:59:59.999999", "2026-06-30 16:00", "2026-09-30 15:59:59.999999",
         "2026-09-30 16:00")
    ):  # fmt: skip
        rig.sql(
            "INSERT INTO log VALUES (%s, 'a', %s::timestamp AT TIME ZONE 'UTC')", number, moment
        )
    made = rig.context().rules.population("openings")
    assert rig.frame(made.sql).lines == ["1", "2"]
    assert rig.frame(made.sql, quarter="2026Q2").lines == ["0"]


def test_a_population_may_be_larger_than_a_piece(asked: Rig) -> None:
    """Counts, digest and picks agree however many pieces flow by."""
    query = "SELECT g AS id, 's' || g % 7 AS stratum FROM generate_series(1, 200000) AS g"
    plainly, divided = asked.frame(query), asked.frame(query, strata=True)
    assert len(plainly.content) > 4 * PIECE
    assert plainly.frame.items == divided.frame.items == 200_000
    assert divided.frame.strata == {f"s{n}": 200_000 // 7 + (1 <= n <= 3) for n in range(7)}
    wanted = {1, 2, 77_777, 199_999, 200_000}
    assert [one.key for one in picked(plainly.content, wanted)] == [str(n) for n in sorted(wanted)]
    items = list(pick(io.BytesIO(divided.content), {"s0": {1, 28571}, "s3": {1}}, stratified=True))
    assert [one.key for one in items] == ["3", "7", "199997"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS id -- as of today",
        "SELECT 1 AS id /* {curly} %s %(name)s %d */",
        "SELECT '{a}%s'::text AS id",
        "SELECT id FROM (VALUES ('100%'), ('{}'), (':id')) AS t (id) WHERE id LIKE '%'",
        "WITH own AS (SELECT 1 AS id) SELECT id FROM own",
        "SELECT 1 AS id FROM period ORDER BY 1 LIMIT 1",
    ],
)
def test_the_sql_may_have_signs_that_programs_read_otherwise(asked: Rig, sql: str) -> None:
    """A percent sign, braces, a colon, a comment at the end."""
    assert asked.frame(sql).frame.items >= 1


SECRET = "13912345678"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT id FROM nothing_here", "SQLSTATE 42P01"),
        ("SELECT l.no_column AS id FROM log l", "SQLSTATE 42703"),
        ("SELECT 1 AS other", "SQLSTATE 42703"),
        ("SELEC 1 AS id", "SQLSTATE 42601"),
        ("SELECT 1 AS id;", "SQLSTATE 42601"),
        ("SELECT 1 AS id /* no end", "SQLSTATE 42601"),
        (f"SELECT v::int AS id FROM (VALUES ('1'), ('x{SECRET}')) AS t (v)", "SQLSTATE 22P02"),
        (f"SELECT 1 / (v - {SECRET}) AS id FROM (VALUES ({SECRET})) AS t (v)", "SQLSTATE 22012"),
        ("SELECT (SELECT g FROM generate_series(1, 2) g) AS id", "SQLSTATE 21000"),
        ("SELECT txid_current() AS id, nextval('numbers')", "SQLSTATE 25006"),
        (f"SELECT told('{SECRET}') AS id FROM log", "SQLSTATE P0001"),
    ],
)
def test_faulty_sql_is_wrong_usage_and_no_value_is_told(asked: Rig, sql: str, message: str) -> None:
    """The words of the server may quote a customer's value: its code is enough."""
    asked.sql("CREATE SEQUENCE IF NOT EXISTS numbers")
    asked.sql(
        "CREATE OR REPLACE FUNCTION told(v text) RETURNS text LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'what of %', v; END $$"
    )
    with pytest.raises(UsageError) as caught:
        asked.frame(sql)
    assert message in caught.value.message
    assert "audit.yaml" in caught.value.action
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_what_functions_say_by_the_way_blocks_nothing(asked: Rig) -> None:
    """Notices of a function fill no pipe that nobody reads."""
    asked.sql(
        "CREATE OR REPLACE FUNCTION chatty(v int) RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE INFO 'seen %', v; RAISE WARNING 'oh %', v; RETURN v; END $$"
    )
    query = "SELECT chatty(g) AS id FROM generate_series(1, 20000) AS g"
    assert asked.frame(query).frame.items == 20_000


def test_a_missing_right_says_what_to_grant(asked: Rig) -> None:
    """Of the table, and of rows that a policy would hide."""
    name = f"reader_{random.randrange(10**9)}"
    asked.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
    context = asked.context()
    made = context.rules.population("openings")
    address = type(context.reader("shop")).from_conninfo(f"{asked.source} user={name} password=p")
    try:
        for statement in (None, f"GRANT SELECT ON log TO {name}"):
            if statement:
                asked.sql(statement)
                asked.sql("ALTER TABLE log ENABLE ROW LEVEL SECURITY")
            with pytest.raises(UsageError, match=r"may not be read \(SQLSTATE 42501\)") as caught:
                freeze(address, context.database("shop"), made, third_quarter(), io.BytesIO())
            assert "SELECT" in caught.value.action
    finally:
        asked.sql("ALTER TABLE log DISABLE ROW LEVEL SECURITY")
        asked.sql(f"DROP OWNED BY {name}")
        asked.sql(f"DROP ROLE {name}")


# -- picking, against a reader that is plainly right --------------------------------------------

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
_ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
            "\v": "\\v"}  # fmt: skip


def escaped(text: str) -> str:
    return "".join(_ESCAPES.get(one, one) for one in text)


@given(TEXTS)
def test_an_escaped_field_is_got_back(text: str) -> None:
    """Whatever it holds."""
    assert plain(escaped(text)) == text


class Slowly:
    """A source that gives less than was asked for, as a network does."""

    def __init__(self, content: bytes, piece: int) -> None:
        self.left, self.piece = io.BytesIO(content), piece

    def read(self, size: int) -> bytes:
        return self.left.read(min(size, self.piece))


@settings(max_examples=200)
@given(
    st.lists(TEXTS, max_size=30, unique=True),
    st.integers(1, 64),
    st.randoms(use_true_random=False),
)
def test_items_are_picked_as_a_naive_reader_picks_them(
    keys: list[str], piece: int, dice: random.Random
) -> None:
    """Without strata: wherever the bytes are cut."""
    content = "".join(escaped(one) + "\n" for one in keys).encode()
    wanted = {n for n in range(1, len(keys) + 1) if dice.random() < 0.3}
    found = pick(Slowly(content, piece), {WHOLE: wanted}, stratified=False)
    assert list(found) == [Item(n, n, keys[n - 1], WHOLE) for n in sorted(wanted)]


@settings(max_examples=200)
@given(
    st.lists(TEXTS, max_size=30, unique=True),
    st.lists(TEXTS, min_size=1, max_size=4, unique=True),
    st.integers(1, 64),
    st.randoms(use_true_random=False),
)
def test_items_of_strata_are_picked_as_a_naive_reader_picks_them(
    keys: list[str], names: list[str], piece: int, dice: random.Random
) -> None:
    """With strata, each counted by itself."""
    strata = [dice.choice(names) for _one in keys]
    lines = [f"{escaped(k)}\t{escaped(s)}\n" for k, s in zip(keys, strata, strict=True)]
    expected: list[Item] = []
    wanted: dict[str, set[int]] = {}
    seen = dict.fromkeys(names, 0)
    for n, (key, stratum) in enumerate(zip(keys, strata, strict=True), 1):
        seen[stratum] += 1
        if dice.random() < 0.3:
            wanted.setdefault(stratum, set()).add(seen[stratum])
            expected.append(Item(n, seen[stratum], key, stratum))
    found = pick(Slowly("".join(lines).encode(), piece), wanted, stratified=True)
    assert list(found) == expected


def test_what_is_not_in_the_frame_is_not_picked() -> None:
    """The caller sees that something is missing."""
    assert [one.line for one in picked(b"a\nb\n", {2, 3})] == [2]
    wanted = {"x": {1, 2}, "z": {1}}
    found = pick(io.BytesIO(b"a\tx\nb\ty\n"), wanted, stratified=True)
    assert [(one.line, one.stratum) for one in found] == [(1, "x")]
