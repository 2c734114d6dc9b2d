"""Tests of the check of keys of retention.yaml against the types of live columns."""

from __future__ import annotations

from pathlib import Path

import psycopg

from include.registry import load_pack
from include.retention.hold_keys import find_key_problems
from tests.policy.packs import write_pack

MAP = """\
fides_key: shop
name: Shop
collections:
  - name: parcel
    fields: [{name: id, fides_meta: {primary_key: true}}, {name: tags}, {name: doc}, {name: at}]
"""
RULES = """\
- class: other
  collection: parcel
  clock: at
  period: P1Y
  action: keep
  basis: business
  keys:
    subject: t.id
    waybill:
      - t.doc ->> 'id'
      - t.tags
    case: t.doc
- class: broken
  collection: parcel
  clock: at
  period: P1Y
  action: keep
  basis: business
  keys: {case: t.nothing}
"""


def test_find_key_problems_returns_each_unusable_key_of_retention_yaml_with_line_number(
    database: str, tmp_path: Path
) -> None:
    pack = load_pack(write_pack(tmp_path, datamap__shop=MAP, retention=RULES))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE parcel (id uuid PRIMARY KEY, tags text[], doc jsonb, at date)"
        )
        problems = [
            str(problem) for problem in find_key_problems(pack, pack.database("shop"), connection)
        ]
    assert [line.split(" has the type ")[0] for line in problems[:2]] == [
        "retention.yaml:11: [0].keys.waybill[1]: a key of waybill",
        "retention.yaml:12: [0].keys.case: a key of case",
    ]
    assert "the type text[]" in problems[0]
    assert all("citext, an enum, uuid" in line for line in problems[:2])
    assert problems[2:] == [
        "retention.yaml:19: [1].keys: the database does not understand a key (SQLSTATE 42703)"
    ]
