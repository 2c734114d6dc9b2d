"""Keys inside JSON columns that the data map lacks: found, counted, and named with care."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.evidence.model import Outcome
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.policy.datamap import MappedField
from include.registry import load_pack
from include.schema.drift import mapped_schemas
from include.schema.json_keys import UndeclaredKeys, findings, places, undeclared_keys
from include.schema.live import read_schema
from tests.schema.support import field, fields, mapped, scratch

TABLE = (
    "CREATE TABLE person (id int PRIMARY KEY, prefs jsonb, whole jsonb, old json, tags jsonb[]);"
)
PREFS = MappedField(
    name="prefs",
    fields=fields(
        field("colour"),
        MappedField(name="home", fields=fields(field("floor"), field("lift"))),
        MappedField(name="by_day", fields={}),
    ),
)
MAP = {"person": fields(field("id", key=True), PREFS, field("whole"))}
PHONE = "13800138000"


def looked_at(
    connection: psycopg.Connection[Any], *values: object, column: str = "prefs"
) -> list[UndeclaredKeys]:
    """What is found of persons with these values."""
    known = MAP["person"] | {"old": PREFS.model_copy(update={"name": "old"})}
    known |= {"tags": PREFS.model_copy(update={"name": "tags"})}
    connection.execute("DELETE FROM person")
    for key, value in enumerate(values):
        query = f"INSERT INTO person (id, {column}) VALUES (%s, %s)"
        text = None if value is None else value if isinstance(value, str) else json.dumps(value)
        connection.execute(query.encode(), [key, text])
    wanted = places(read_schema(connection), mapped({"person": known}))
    return undeclared_keys(connection, "shop", wanted)


def test_a_key_that_nobody_declared_is_found(postgres: EmbeddedPostgres) -> None:
    """At the top and inside declared keys, also of objects in arrays."""
    with scratch(postgres, TABLE) as connection:
        found = looked_at(
            connection,
            *[{"colour": "red", "creed": PHONE}] * 12,
            *[{"home": {"floor": 3, "alarmCode": PHONE}}] * 11,
            {"home": [{"floor": 1}, {"cat": 1}, {"cat": 2}]},
            [{"dog": 1}],
            {"colour": {"deep": 1}, "by_day": {"monday": 1}},
        )
    assert found == [
        UndeclaredKeys("shop.public.person", "prefs", 13, ("creed",), 1),
        UndeclaredKeys("shop.public.person", "prefs.home", 12, ("alarmCode",), 1),
    ]


def test_the_shipped_map_names_every_key_of_the_sample(courier: psycopg.Connection[Any]) -> None:
    """And one more key in one record is found."""
    database = load_pack(SHIPPED).database("courier")
    wanted = places(read_schema(courier, mapped_schemas(database)), database)
    assert wanted
    assert undeclared_keys(courier, "courier", wanted) == []
    with courier.transaction(force_rollback=True):
        courier.execute(
            """UPDATE customer SET preferences = '{"creed": "x"}' WHERE customer_id = 5"""
        )
        (found,) = undeclared_keys(courier, "courier", wanted)
    assert (found.place, found.field) == ("courier.public.customer", "preferences")


@pytest.mark.parametrize(
    "value",
    [None, "null", "3", '"text"', "[]", "{}", {"colour": 1}, {"home": None}, {"home": "text"}],
)
def test_what_is_no_object_has_no_keys(postgres: EmbeddedPostgres, value: object) -> None:
    """Nor is a column without declared keys looked at: it is declared as a whole."""
    with scratch(postgres, TABLE) as connection:
        connection.execute("""INSERT INTO person (id, whole) VALUES (99, '{"creed": "x"}')""")
        assert looked_at(connection, value) == []
        assert looked_at(connection, {"creed": 1}, column="whole") == []


@pytest.mark.parametrize(
    "key",
    [PHONE, f"u{PHONE}", "张伟", "a b", "ada@example.com", "x" * 41, "53010219200508011X", "1st"],
)
def test_a_key_that_could_be_a_value_is_counted_and_never_named(
    postgres: EmbeddedPostgres, key: str
) -> None:
    """However many records have it."""
    with scratch(postgres, TABLE) as connection:
        (found,) = looked_at(connection, *[{key: 1}] * 30)
    assert (found.names, found.unnamed, found.records) == ((), 1, 30)
    (finding,) = findings([found])
    assert finding.severity is Outcome.FAIL
    assert key not in finding.model_dump_json()


def test_a_rare_key_is_not_named(postgres: EmbeddedPostgres) -> None:
    """Objects by a person's name have an identifier's form; one in a hundred records at least."""
    with scratch(postgres, TABLE) as connection:
        (few,) = looked_at(connection, *[{"zhangwei": 1}] * 9)
        (rare,) = looked_at(connection, *[{"zhangwei": 1}] * 12, *[{"colour": 1}] * 1500)
        (many,) = looked_at(connection, *({f"name_{n}": 1} for n in range(300)))
    assert (few.names, few.unnamed) == ((), 1)
    assert (rare.names, rare.unnamed) == ((), 1)
    assert (many.names, many.unnamed) == ((), 300)


def test_columns_of_the_type_json_are_looked_at_too(postgres: EmbeddedPostgres) -> None:
    """One that PostgreSQL cannot take as jsonb is said to be unchecked; the others are checked."""
    with scratch(postgres, TABLE) as connection:
        (found,) = looked_at(connection, *[{"creed": 1}] * 10, column="old")
        assert found.names == ("creed",)
        (found,) = looked_at(connection, r'{"colour": "\u0000"}', column="old")
        assert (found.fault, found.keys) == ("22P05", 0)
        (finding,) = findings([found])
        assert (finding.code, finding.severity) == ("schema.json_unchecked", Outcome.ATTENTION)
        assert connection.execute("SELECT 1").fetchone() == (1,)


KEYS = st.sampled_from(["colour", "home", "floor", "creed", "a%s", 'q"q', "$x", "张", PHONE, "\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(PHONE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def undeclared(value: object, path: tuple[str, ...], declared: set[str]) -> set[str]:
    """The same by hand; an array counts as each of its elements."""
    if path:
        objects = value if isinstance(value, list) else [value]
        inner = [one[path[0]] for one in objects if isinstance(one, dict) and path[0] in one]
        return {key for one in inner for key in undeclared(one, path[1:], declared)}
    objects = value if isinstance(value, list) else [value]
    return {key for one in objects if isinstance(one, dict) for key in one} - declared


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(VALUES, max_size=6))
def test_every_undeclared_key_is_counted_whatever_the_json(
    keys_database: psycopg.Connection[Any], values: list[object]
) -> None:
    """Keys with percent signs, quotes and dollars, arrays in objects in arrays."""
    found = {
        one.field: (one.records, one.keys)
        for one in looked_at(keys_database, *(json.dumps(one) for one in values))
    }
    expected = {}
    for path, declared in (((), {"colour", "home", "by_day"}), (("home",), {"floor", "lift"})):
        each = [undeclared(one, path, declared) for one in values]
        if any(each):
            name = ".".join(("prefs", *path))
            expected[name] = (sum(map(bool, each)), len(set().union(*each)))
    assert found == expected


@pytest.fixture(scope="module")
def keys_database(postgres: EmbeddedPostgres) -> Any:
    """One for all examples; each begins with an empty table."""
    with scratch(postgres, TABLE) as connection:
        yield connection
