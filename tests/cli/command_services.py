"""Test double for the services of a command: a policy pack, a fixed clock and a state database."""

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


def use_services(
    monkeypatch: pytest.MonkeyPatch,
    command: ModuleType,
    state: Engine,
    folder: Path,
    *,
    one_database: bool = False,
    mapped: str = "host=127.0.0.1 port=1 user=nobody dbname=none",
) -> None:
    """Let a command use a pack that maps the databases shop and partners, or only shop.

    Args:
        monkeypatch: monkeypatch fixture of the test.
        command: module of the command.
        state: engine of the state database.
        folder: folder for the files of the pack.
        one_database: whether the pack maps only shop.
        mapped: connection string of both mapped databases; the default is an address without a
            server.
    """
    files = {"datamap__shop": SHOP, "retention": RETENTION}
    if one_database:
        files["retention"] = SHOP_RETENTION
    else:
        files["datamap__partners"] = SHOP.replace("fides_key: shop", "fides_key: partners")
    pack = load_pack(write_pack(folder, **files))
    clock = FixedClock(START)

    address = DatabaseAddress.from_conninfo(mapped)
    stub = SimpleNamespace(
        state=state,
        pack=pack,
        clock=clock,
        database=lambda conn_id: address,
        role_database=lambda conn_id, mapped: address,
        erasure_keys=ErasureKeys({"1": b"k" * 32}, "1"),
    )
    monkeypatch.setattr(command, "command_services", lambda: stub)
    monkeypatch.setattr(command, "local_stack", nullcontext)
