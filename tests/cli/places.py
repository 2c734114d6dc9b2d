"""A workplace for commands that need a pack and a state database, and nothing else."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from sqlalchemy import Engine

from include.policy import load_pack
from include.services.clock import FixedClock
from tests.evidence.support import START
from tests.policy.packs import SHOP, write_pack

RETENTION = """\
- class: buyer
  database: shop
  collection: buyer
  clock: seen_at
  period: P1Y
  action: delete
  basis: business
  keys: {subject: t.id}
  on_request: true
- class: partner
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
) -> None:
    """Give a command a pack of the databases shop and partners, or of shop alone."""
    files = {"datamap__shop": SHOP, "retention": RETENTION}
    if one_database:
        files["retention"] = RETENTION.split("- class: partner")[0]
    else:
        files["datamap__partners"] = SHOP.replace("fides_key: shop", "fides_key: partners")
    pack = load_pack(write_pack(folder, **files))
    place = SimpleNamespace(state=state, pack=pack, clock=FixedClock(START))
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", lambda _place: nullcontext())
