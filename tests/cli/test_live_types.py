"""Check the pack against live types: an unreachable database does not stop the others."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from include.cli import config_connect
from include.cli.config_connect import mapped_databases, type_problems
from include.composition import new_workplace
from include.services.errors import ServiceError
from include.workplace import Workplace
from tests.policy.packs import write_pack
from tests.retention.place import spec

MAP = """\
fides_key: {name}
meta: {{parcelseal: {{connection: {name}_db}}}}
collections: [{{name: t, fields: [{{name: id, fides_meta: {{primary_key: true}}}}, {{name: at}}]}}]
"""
RULE = """\
- class: t
  database: shop
  collection: t
  clock: at
  period: P1Y
  action: keep
  basis: business
  keys: {case: t.id}
"""
SUITE = """\
- database: shop
  collection: t
  expectations:
    - id: a
      type: expect_column_values_to_be_between
      kwargs: {column: id, min_value: 1}
      severity: warn
      clause: "5.1"
      title: {en: a, zh-CN: b}
"""


@pytest.fixture
def place(database: str, tmp_path: Path) -> Workplace:
    """A pack over two databases, of which one is down, with a key and a rule that do not fit."""
    maps = {f"datamap__{name}": MAP.format(name=name) for name in ("down", "shop")}
    pack = write_pack(tmp_path / "pack", **maps, retention=RULE, quality__t=SUITE)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id jsonb PRIMARY KEY, at date)")
    down = "host=127.0.0.1 port=1 user=x password=x dbname=x connect_timeout=1"
    specs = {"shop_db": spec("shop_db", database), "down_db": spec("down_db", down)}
    return new_workplace(tmp_path / "home", pack, specs.get)


def test_problems_of_types_are_found_though_a_database_is_down(place: Workplace) -> None:
    """Keys of holds and expectations, in one list."""
    assert [str(problem).split(":")[:3] for problem in type_problems(place)] == [
        ["retention.yaml", "8", " [0].keys.case"],
        ["quality/t.yaml", "5", " [0].expectations[0].type"],
    ]


def test_expectations_are_checked_where_keys_cannot_be(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session may hold the lock of a table whose keys are asked."""

    def locked(*_: object) -> None:
        raise ServiceError("Another session holds a lock.")

    monkeypatch.setattr(config_connect, "key_problems", locked)
    (problem,) = type_problems(place)
    assert problem.file == "quality/t.yaml"


def test_mapped_databases_names_database_without_any_mapped_table(
    database: str, tmp_path: Path
) -> None:
    """The address of another database is well-formed, and its login works."""
    pack = write_pack(tmp_path / "pack", datamap__shop=MAP.format(name="shop"))
    place = new_workplace(tmp_path / "home", pack, {"shop_db": spec("shop_db", database)}.get)
    (problem,) = mapped_databases(place)
    assert problem.connection == "shop_db"
    assert problem.message.endswith("has none of the 1 mapped tables: it is another database.")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, at date)")
    assert list(mapped_databases(place)) == []
