"""Tests of frames: one line per item in a reproducible order, or no frame at all."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.frame import NO_STRATUM, PIECE, Frame, Item, freeze, pick, unescape
from include.services.errors import ControlFailed, UsageError
from tests.sampling.company import Company, third_quarter

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
    """Return a SELECT that returns the given texts as ids."""
    quoted = ", ".join("('" + value.replace("'", "''") + "')" for value in values)
    return f"SELECT v AS id FROM (VALUES {quoted}) AS t (v)"


def picked(content: bytes, lines: set[int]) -> list[Item]:
    return list(pick(io.BytesIO(content), {NO_STRATUM: lines}, stratified=False))


@pytest.fixture(scope="module")
def frame_company(shop: Company) -> Company:
    """Provide a company without a reset, because these tests do not change its state database."""
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
def test_item_ids_have_a_fixed_order_in_sampling_frame_for_each_data_type(
    frame_company: Company, ids: str, lines: list[str]
) -> None:
    """Numbers are ordered by value; texts and composite values are ordered by bytes."""
    frozen = frame_company.freeze_query(f"SELECT v AS id FROM (VALUES {ids}) AS t (v)")
    assert frozen.lines == lines
    assert frozen.frame.strata == {NO_STRATUM: len(lines)}
    assert [item.key for item in picked(frozen.content, set(range(1, len(lines) + 1)))] == lines


def test_item_ids_with_any_character_are_read_back_unchanged_from_sampling_frame(
    frame_company: Company,
) -> None:
    """Each line of the frame is one item, and the id is read back unchanged."""
    frame_company.sql("CREATE TABLE odd (v text)")
    for text in ODD:
        frame_company.sql("INSERT INTO odd VALUES (%s)", text)
    frozen = frame_company.freeze_query("SELECT v AS id FROM odd")
    assert frozen.frame.items == len(frozen.lines) == len(ODD)
    keys = [item.key for item in picked(frozen.content, set(range(1, len(ODD) + 1)))]
    assert keys == sorted(ODD, key=str.encode)


def test_text_ids_are_ordered_by_bytes_in_any_collation(frame_company: Company) -> None:
    """Another server, or another version of its libraries, therefore gives the same frame."""
    mixed = ["b", "B", "a", "A", "ä", "z", "_", "1", "10", "2", "中", "文"]
    usable = "collencoding IN (-1, pg_char_to_encoding('UTF8')) AND collprovider <> 'i'"
    for (collation,) in frame_company.sql(f"SELECT collname FROM pg_collation WHERE {usable}"):
        query = f'SELECT v COLLATE "{collation}" AS id FROM ({rows(mixed)}) AS t (v)'
        assert frame_company.freeze_query(query).lines == sorted(mixed, key=str.encode)


def test_enum_ids_are_ordered_by_text(frame_company: Company) -> None:
    """The order of the values of an enum may differ in a copy of the database."""
    frame_company.sql("CREATE TYPE size AS ENUM ('small', 'big', 'Huge')")
    ids = "SELECT v::size AS id FROM (VALUES ('small'), ('big'), ('Huge')) AS t (v)"
    assert frame_company.freeze_query(ids).lines == ["Huge", "big", "small"]


def test_empty_population_gives_sampling_frame_without_lines(frame_company: Company) -> None:
    for strata in (False, True):
        query = "SELECT 1 AS id, 'a' AS stratum WHERE false"
        frozen = frame_company.freeze_query(query, strata=strata)
        assert (frozen.content, frozen.frame.items, frozen.frame.strata) == (b"", 0, {})


@pytest.mark.parametrize("key", ["1", "", "\n"])
def test_population_of_one_item_gives_sampling_frame_with_one_line_even_if_id_is_empty_text(
    frame_company: Company, key: str
) -> None:
    """An empty text is an id and not a missing id."""
    frozen = frame_company.freeze_query(rows([key]))
    assert frozen.frame == Frame(frozen.frame.sha256, 1, {NO_STRATUM: 1})
    assert picked(frozen.content, {1}) == [Item(1, 1, key, NO_STRATUM)]


@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("type_", ["bigint", "text", "numeric"])
def test_freeze_raises_control_failed_if_an_item_id_is_null(
    frame_company: Company, type_: str, strata: bool
) -> None:
    r"""NULL is a missing id, but the text ``\N`` is an id."""
    for missing in ("(NULL)", "(NULL), (NULL)"):
        query = f"SELECT v::{type_} AS id, 'a' AS stratum FROM (VALUES (2), {missing}) AS t (v)"
        with pytest.raises(ControlFailed, match=r"openings|branches") as caught:
            frame_company.freeze_query(query, strata=strata)
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
def test_freeze_raises_control_failed_if_two_items_have_the_same_id(
    frame_company: Company, ids: str, strata: bool
) -> None:
    """An item with two lines would have a higher chance of being drawn.

    Equal ids may have different texts.
    """
    query = f"SELECT v AS id, 'a' AS stratum FROM (VALUES {ids}) AS t (v)"
    with pytest.raises(ControlFailed, match="has an id more than once"):
        frame_company.freeze_query(query, strata=strata)


def test_freeze_raises_control_failed_if_an_item_id_is_in_two_strata(
    frame_company: Company,
) -> None:
    query = "SELECT v AS id, s AS stratum FROM (VALUES (1, 'a'), (2, 'a'), (1, 'b')) AS t (v, s)"
    with pytest.raises(ControlFailed, match="has an id more than once"):
        frame_company.freeze_query(query, strata=True)


def test_freeze_raises_control_failed_if_two_chunks_of_sampling_frame_contain_the_same_id(
    frame_company: Company,
) -> None:
    """The frame is checked piece by piece. Each of these ids fills most of a piece."""
    long = "repeat('x', 100000)"
    for twice in range(1, 8):
        ids = f"SELECT {long} || g AS id FROM generate_series(1, 8) AS g"
        assert frame_company.freeze_query(ids).frame.items == 8
        with pytest.raises(ControlFailed, match="has an id more than once"):
            frame_company.freeze_query(f"{ids} UNION ALL SELECT {long} || {twice}")


def test_names_of_strata_may_contain_any_character(frame_company: Company) -> None:
    """NULL and the empty text are the same stratum; all other names are different strata."""
    names = ["a", "A", "tab\there", "line\nfeed", "back\\slash", "\\N", "北京", "a,b", "", None]
    quoted = ", ".join(
        f"({at}, " + ("NULL" if name is None else "'" + name + "'") + ")"
        for at, name in enumerate(names)
    )
    query = f"SELECT v AS id, s AS stratum FROM (VALUES {quoted}) AS t (v, s)"
    frozen = frame_company.freeze_query(query, strata=True)
    assert frozen.frame.strata == {name: 1 for name in names if name} | {"": 2}
    ordinals = {name: {1} for name in names if name} | {"": {1, 2}}
    items = list(pick(io.BytesIO(frozen.content), ordinals, stratified=True))
    assert [item.stratum for item in items] == [name or "" for name in names]
    assert [item.key for item in items] == [str(at) for at in range(len(names))]


def test_boolean_stratum_column_of_population_query_gives_strata_named_true_and_false(
    frame_company: Company,
) -> None:
    """The name of the stratum is PostgreSQL's text for the value."""
    query = "SELECT v AS id, v % 2 = 0 AS stratum FROM generate_series(1, 5) AS t (v)"
    assert frame_company.freeze_query(query, strata=True).frame.strata == {"false": 3, "true": 2}


def test_sampling_frame_contains_only_items_of_the_quarter_in_policy_pack_timezone(
    company: Company,
) -> None:
    """The first moment of the quarter is included; that of the next quarter is not."""
    company.sql("TRUNCATE log")
    for number, moment in enumerate(
        ("2026-06-30 15:59:59.999999", "2026-06-30 16:00", "2026-09-30 15:59:59.999999",
         "2026-09-30 16:00")
    ):  # fmt: skip
        company.sql(
            "INSERT INTO log VALUES (%s, 'a', %s::timestamp AT TIME ZONE 'UTC')", number, moment
        )
    openings = company.context().rules.population("openings")
    assert company.freeze_query(openings.sql).lines == ["1", "2"]
    assert company.freeze_query(openings.sql, quarter="2026Q2").lines == ["0"]


def test_sampling_frame_has_correct_counts_and_items_if_it_is_read_in_several_chunks(
    frame_company: Company,
) -> None:
    """Counts, digest and picked items are right if the frame is read in several pieces."""
    query = "SELECT g AS id, 's' || g % 7 AS stratum FROM generate_series(1, 200000) AS g"
    plainly, divided = (
        frame_company.freeze_query(query),
        frame_company.freeze_query(query, strata=True),
    )
    assert len(plainly.content) > 4 * PIECE
    assert plainly.frame.items == divided.frame.items == 200_000
    assert divided.frame.strata == {f"s{n}": 200_000 // 7 + (1 <= n <= 3) for n in range(7)}
    ordinals = {1, 2, 77_777, 199_999, 200_000}
    assert [item.key for item in picked(plainly.content, ordinals)] == [
        str(n) for n in sorted(ordinals)
    ]
    items = list(pick(io.BytesIO(divided.content), {"s0": {1, 28571}, "s3": {1}}, stratified=True))
    assert [item.key for item in items] == ["3", "7", "199997"]


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
def test_population_sql_may_contain_special_characters(frame_company: Company, sql: str) -> None:
    """The SQL contains percent signs, braces, colons, or a comment at the end."""
    assert frame_company.freeze_query(sql).frame.items >= 1


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
def test_error_about_invalid_population_sql_contains_sqlstate_but_no_data_values(
    frame_company: Company, sql: str, message: str
) -> None:
    """The server's message may quote a customer's value. Therefore only the SQLSTATE is shown."""
    frame_company.sql("CREATE SEQUENCE IF NOT EXISTS numbers")
    frame_company.sql(
        "CREATE OR REPLACE FUNCTION told(v text) RETURNS text LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'what of %', v; END $$"
    )
    with pytest.raises(UsageError) as caught:
        frame_company.freeze_query(sql)
    assert message in caught.value.message
    assert "audit.yaml" in caught.value.action
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_freeze_of_population_completes_if_sql_function_raises_many_notice_messages(
    frame_company: Company,
) -> None:
    """Notices must be read, because otherwise they would fill their pipe and block psql."""
    frame_company.sql(
        "CREATE OR REPLACE FUNCTION chatty(v int) RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE INFO 'seen %', v; RAISE WARNING 'oh %', v; RETURN v; END $$"
    )
    query = "SELECT chatty(g) AS id FROM generate_series(1, 20000) AS g"
    assert frame_company.freeze_query(query).frame.items == 20_000


def test_error_about_missing_privilege_contains_the_required_grant(frame_company: Company) -> None:
    """The privilege on the table is missing, or row-level security applies to it."""
    name = f"reader_{random.randrange(10**9)}"
    frame_company.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
    context = frame_company.context()
    openings = context.rules.population("openings")
    address = type(context.reader("shop")).from_conninfo(
        f"{frame_company.source} user={name} password=p"
    )
    try:
        for statement in (None, f"GRANT SELECT ON log TO {name}"):
            if statement:
                frame_company.sql(statement)
                frame_company.sql("ALTER TABLE log ENABLE ROW LEVEL SECURITY")
            with pytest.raises(UsageError, match=r"may not be read \(SQLSTATE 42501\)") as caught:
                freeze(address, context.database("shop"), openings, third_quarter(), io.BytesIO())
            assert "SELECT" in caught.value.action
    finally:
        frame_company.sql("ALTER TABLE log DISABLE ROW LEVEL SECURITY")
        frame_company.sql(f"DROP OWNED BY {name}")
        frame_company.sql(f"DROP ROLE {name}")


# -- picking, compared with a simple reader ----------------------------------------------------

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
_ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
            "\v": "\\v"}  # fmt: skip


def escaped(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


@given(TEXTS)
def test_unescape_returns_the_original_text_of_an_escaped_field(text: str) -> None:
    assert unescape(escaped(text)) == text


class SlowSource:
    """A source that returns fewer bytes than requested, like a network connection."""

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
def test_pick_without_strata_returns_items_on_the_requested_lines_of_sampling_frame(
    keys: list[str], piece: int, dice: random.Random
) -> None:
    """The picked items do not depend on the size of the pieces that are read."""
    content = "".join(escaped(key) + "\n" for key in keys).encode()
    ordinals = {n for n in range(1, len(keys) + 1) if dice.random() < 0.3}
    picked_items = pick(SlowSource(content, piece), {NO_STRATUM: ordinals}, stratified=False)
    assert list(picked_items) == [Item(n, n, keys[n - 1], NO_STRATUM) for n in sorted(ordinals)]


@settings(max_examples=200)
@given(
    st.lists(TEXTS, max_size=30, unique=True),
    st.lists(TEXTS, min_size=1, max_size=4, unique=True),
    st.integers(1, 64),
    st.randoms(use_true_random=False),
)
def test_pick_with_strata_returns_items_at_the_requested_positions_in_each_stratum(
    keys: list[str], names: list[str], piece: int, dice: random.Random
) -> None:
    """The ordinals are counted separately in each stratum."""
    strata = [dice.choice(names) for _key in keys]
    lines = [f"{escaped(k)}\t{escaped(s)}\n" for k, s in zip(keys, strata, strict=True)]
    expected: list[Item] = []
    ordinals: dict[str, set[int]] = {}
    counts = dict.fromkeys(names, 0)
    for n, (key, stratum) in enumerate(zip(keys, strata, strict=True), 1):
        counts[stratum] += 1
        if dice.random() < 0.3:
            ordinals.setdefault(stratum, set()).add(counts[stratum])
            expected.append(Item(n, counts[stratum], key, stratum))
    picked_items = pick(SlowSource("".join(lines).encode(), piece), ordinals, stratified=True)
    assert list(picked_items) == expected


def test_pick_returns_no_item_for_line_or_stratum_that_is_not_in_sampling_frame() -> None:
    """The caller detects that items are missing."""
    assert [item.line for item in picked(b"a\nb\n", {2, 3})] == [2]
    ordinals = {"x": {1, 2}, "z": {1}}
    picked_items = pick(io.BytesIO(b"a\tx\nb\ty\n"), ordinals, stratified=True)
    assert [(item.line, item.stratum) for item in picked_items] == [(1, "x")]
