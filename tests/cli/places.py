"""A workplace for commands that need a pack and a state database, and nothing else."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys
from include.registry import load_pack
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from tests.evidence.support import START
from tests.policy.packs import SHOP, write_pack

SHOP_RETENTION = """\
- class: buyer
  database: shop
  collection: buyer
  clock: seen_at
  period: P1Y
  action: delete
  basis: business
  keys: {subject: t.id}
  on_request: true
"""
RETENTION = f"""\
{SHOP_RETENTION}- class: partner
  database: partners
  collection: buyer
  clock: seen_at
  period: P1Y
  action: delete
  basis: business
"""


def place_at(
    monkeypatch: pytest.MonkeyPatch,
    command: ModuleType,
    state: Engine,
    folder: Path,
    *,
    one_database: bool = False,
    mapped: str = "host=127.0.0.1 port=1 user=nobody dbname=none",
) -> None:
    """Give a command a pack of the databases shop and partners, or of shop alone.

    Both are at ``mapped``, a connection string; nobody answers there unless it is given.
    """
    files = {"datamap__shop": SHOP, "retention": RETENTION}
    if one_database:
        files["retention"] = SHOP_RETENTION
    else:
        files["datamap__partners"] = SHOP.replace("fides_key: shop", "fides_key: partners")
    pack = load_pack(write_pack(folder, **files))
    clock = FixedClock(START)

    address = DatabaseAddress.from_conninfo(mapped)
    place = SimpleNamespace(
        state=state,
        pack=pack,
        clock=clock,
        database=lambda conn_id: address,
        role_database=lambda conn_id, mapped: address,
        erasure_keys=ErasureKeys({"1": b"k" * 32}, "1"),
    )
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", nullcontext)
