"""Check the pack against live types: an unreachable database does not stop the others."""

from __future__ import annotations

from pathlib import Path

import psycopg

from include.cli.live_types import type_problems
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


def test_problems_of_types_are_found_though_a_database_is_down(
    database: str, tmp_path: Path
) -> None:
    """Keys of holds and expectations, in one list."""
    maps = {f"datamap__{name}": MAP.format(name=name) for name in ("down", "shop")}
    pack = write_pack(tmp_path / "pack", **maps, retention=RULE, quality__t=SUITE)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id jsonb PRIMARY KEY, at date)")
    down = "host=127.0.0.1 port=1 user=x password=x dbname=x connect_timeout=1"
    specs = {"shop_db": spec("shop_db", database), "down_db": spec("down_db", down)}
    place = Workplace(tmp_path / "home", pack, specs.get)
    assert [str(problem).split(":")[:3] for problem in type_problems(place)] == [
        ["retention.yaml", "8", " [0].keys.case"],
        ["quality/t.yaml", "5", " [0].expectations[0].type"],
    ]
