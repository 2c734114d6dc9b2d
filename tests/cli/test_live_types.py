"""`config check` compares the policy pack with the column types of live databases.

An unreachable database does not prevent the check of the other databases.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from include.cli import config_connect
from include.cli.config_connect import mapped_databases, type_problems
from include.composition import build_services
from include.service_container import Services
from include.services.errors import ServiceError
from tests.policy.packs import write_pack
from tests.retention.chinook_services import spec

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
def services(database: str, tmp_path: Path) -> Services:
    """Return services with a reachable and an unreachable mapped database.

    The key of a legal hold and an expectation do not fit the column types of the reachable
    database.
    """
    maps = {f"datamap__{name}": MAP.format(name=name) for name in ("down", "shop")}
    pack = write_pack(tmp_path / "pack", **maps, retention=RULE, quality__t=SUITE)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id jsonb PRIMARY KEY, at date)")
    down = "host=127.0.0.1 port=1 user=x password=x dbname=x connect_timeout=1"
    specs = {"shop_db": spec("shop_db", database), "down_db": spec("down_db", down)}
    return build_services(tmp_path / "home", pack, specs.get)


def test_check_of_live_column_types_reports_problems_of_other_databases_if_one_database_is_down(
    services: Services,
) -> None:
    """The problems concern the key of a legal hold, and an expectation."""
    assert [str(problem).split(":")[:3] for problem in type_problems(services)] == [
        ["retention.yaml", "8", " [0].keys.case"],
        ["quality/t.yaml", "5", " [0].expectations[0].type"],
    ]


def test_check_of_live_column_types_reports_problem_of_expectation_if_hold_keys_cannot_be_read(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session may have locked a table whose keys must be read."""

    def locked(*_: object) -> None:
        raise ServiceError("Another session holds a lock.")

    monkeypatch.setattr(config_connect, "find_key_problems", locked)
    (problem,) = type_problems(services)
    assert problem.file == "quality/t.yaml"


def test_connection_check_reports_a_database_that_has_none_of_the_mapped_tables(
    database: str, tmp_path: Path
) -> None:
    """The connection string is valid and its login works, but it leads to the wrong database."""
    pack = write_pack(tmp_path / "pack", datamap__shop=MAP.format(name="shop"))
    services = build_services(tmp_path / "home", pack, {"shop_db": spec("shop_db", database)}.get)
    (problem,) = mapped_databases(services)
    assert problem.connection == "shop_db"
    assert problem.message.endswith("has none of the 1 mapped tables: it is another database.")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, at date)")
    assert list(mapped_databases(services)) == []
