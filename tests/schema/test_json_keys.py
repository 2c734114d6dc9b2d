"""Undeclared keys in JSON columns are counted, and named only if they cannot be personal data."""

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
from include.schema.json_keys import UndeclaredKeys, findings, mapped_objects, undeclared_keys
from include.schema.live import read_schema
from tests.schema.support import field, fields, make_data_map, scratch

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


def undeclared_keys_of(
    connection: psycopg.Connection[Any], *values: object, column: str = "prefs"
) -> list[UndeclaredKeys]:
    """Store each value in a record of the table person, and return the undeclared keys."""
    mapped_fields = MAP["person"] | {"old": PREFS.model_copy(update={"name": "old"})}
    mapped_fields |= {"tags": PREFS.model_copy(update={"name": "tags"})}
    connection.execute("DELETE FROM person")
    for key, value in enumerate(values):
        query = f"INSERT INTO person (id, {column}) VALUES (%s, %s)"
        text = None if value is None else value if isinstance(value, str) else json.dumps(value)
        connection.execute(query.encode(), [key, text])
    objects = mapped_objects(read_schema(connection), make_data_map({"person": mapped_fields}))
    return undeclared_keys(connection, "shop", objects)


def test_undeclared_json_keys_are_reported_at_any_depth(postgres: EmbeddedPostgres) -> None:
    """The keys are at the top level, inside declared keys, and in objects inside arrays."""
    with scratch(postgres, TABLE) as connection:
        results = undeclared_keys_of(
            connection,
            *[{"colour": "red", "creed": PHONE}] * 12,
            *[{"home": {"floor": 3, "alarmCode": PHONE}}] * 11,
            {"home": [{"floor": 1}, {"cat": 1}, {"cat": 2}]},
            [{"dog": 1}],
            {"colour": {"deep": 1}, "by_day": {"monday": 1}},
        )
    assert results == [
        UndeclaredKeys("shop.public.person", "prefs", 13, ("creed",), 1),
        UndeclaredKeys("shop.public.person", "prefs.home", 12, ("alarmCode",), 1),
    ]


def test_shipped_data_map_declares_every_json_key_of_the_sample_database(
    courier: psycopg.Connection[Any],
) -> None:
    """A single key that is added to a record is found."""
    database = load_pack(SHIPPED).database("courier")
    objects = mapped_objects(read_schema(courier, mapped_schemas(database)), database)
    assert objects
    assert undeclared_keys(courier, "courier", objects) == []
    with courier.transaction(force_rollback=True):
        courier.execute(
            """UPDATE customer SET preferences = '{"creed": "x"}' WHERE customer_id = 5"""
        )
        (result,) = undeclared_keys(courier, "courier", objects)
    assert (result.table, result.field) == ("courier.public.customer", "preferences")


@pytest.mark.parametrize(
    "value",
    [None, "null", "3", '"text"', "[]", "{}", {"colour": 1}, {"home": None}, {"home": "text"}],
)
def test_json_value_other_than_object_has_no_undeclared_keys(
    postgres: EmbeddedPostgres, value: object
) -> None:
    """A column for which the data map declares no keys is not examined."""
    with scratch(postgres, TABLE) as connection:
        connection.execute("""INSERT INTO person (id, whole) VALUES (99, '{"creed": "x"}')""")
        assert undeclared_keys_of(connection, value) == []
        assert undeclared_keys_of(connection, {"creed": 1}, column="whole") == []


@pytest.mark.parametrize(
    "key",
    [PHONE, f"u{PHONE}", "张伟", "a b", "ada@example.com", "x" * 41, "53010219200508011X", "1st"],
)
def test_undeclared_json_key_that_could_be_personal_data_is_counted_but_not_in_finding(
    postgres: EmbeddedPostgres, key: str
) -> None:
    with scratch(postgres, TABLE) as connection:
        (result,) = undeclared_keys_of(connection, *[{key: 1}] * 30)
    assert (result.names, result.unnamed, result.records) == ((), 1, 30)
    (finding,) = findings([result], make_data_map({}))
    assert finding.severity is Outcome.FAIL
    assert key not in finding.model_dump_json()


def test_rare_undeclared_json_key_is_counted_but_its_name_is_not_returned(
    postgres: EmbeddedPostgres,
) -> None:
    """A person's name as a key looks like an identifier, so rare keys are only counted."""
    with scratch(postgres, TABLE) as connection:
        (few,) = undeclared_keys_of(connection, *[{"zhangwei": 1}] * 9)
        (rare,) = undeclared_keys_of(connection, *[{"zhangwei": 1}] * 12, *[{"colour": 1}] * 1500)
        (many,) = undeclared_keys_of(connection, *({f"name_{n}": 1} for n in range(300)))
    assert (few.names, few.unnamed) == ((), 1)
    assert (rare.names, rare.unnamed) == ((), 1)
    assert (many.names, many.unnamed) == ((), 300)


def test_undeclared_keys_are_reported_in_columns_of_type_json_as_in_jsonb(
    postgres: EmbeddedPostgres,
) -> None:
    """A value that PostgreSQL cannot convert to jsonb makes the whole column unchecked."""
    with scratch(postgres, TABLE) as connection:
        (result,) = undeclared_keys_of(connection, *[{"creed": 1}] * 10, column="old")
        assert result.names == ("creed",)
        (result,) = undeclared_keys_of(connection, r'{"colour": "\u0000"}', column="old")
        assert (result.sqlstate, result.keys) == ("22P05", 0)
        (finding,) = findings([result], make_data_map({}))
        assert (finding.code, finding.severity) == ("schema.json_unchecked", Outcome.ATTENTION)
        assert connection.execute("SELECT 1").fetchone() == (1,)


KEYS = st.sampled_from(["colour", "home", "floor", "creed", "a%s", 'q"q', "$x", "张", PHONE, "\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(PHONE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def undeclared(value: object, path: tuple[str, ...], declared: set[str]) -> set[str]:
    """Return the undeclared keys of a value, computed in Python.

    An array is treated as its items.
    """
    if path:
        objects = value if isinstance(value, list) else [value]
        inner = [node[path[0]] for node in objects if isinstance(node, dict) and path[0] in node]
        return {key for node in inner for key in undeclared(node, path[1:], declared)}
    objects = value if isinstance(value, list) else [value]
    return {key for node in objects if isinstance(node, dict) for key in node} - declared


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(VALUES, max_size=6))
def test_sql_query_returns_the_same_undeclared_json_keys_as_a_search_in_python(
    keys_database: psycopg.Connection[Any], values: list[object]
) -> None:
    """The values have keys with percent signs, quotes and dollar signs, and nested arrays."""
    counts = {
        result.field: (result.records, result.keys)
        for result in undeclared_keys_of(keys_database, *(json.dumps(value) for value in values))
    }
    expected = {}
    for path, declared in (((), {"colour", "home", "by_day"}), (("home",), {"floor", "lift"})):
        each = [undeclared(value, path, declared) for value in values]
        if any(each):
            name = ".".join(("prefs", *path))
            expected[name] = (sum(map(bool, each)), len(set().union(*each)))
    assert counts == expected


@pytest.fixture(scope="module")
def keys_database(postgres: EmbeddedPostgres) -> Any:
    """Provide one database for all examples. Each example starts with an empty table."""
    with scratch(postgres, TABLE) as connection:
        yield connection
