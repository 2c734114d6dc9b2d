"""Packs that tests write into a temporary folder."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from include.policy import PackError, PackProblem
from include.registry import load_pack

SHOP = """\
fides_key: shop
collections:
  - name: buyer
    fields:
      - name: id
        fides_meta: {primary_key: true}
      - name: phone
        data_categories: [user.contact.phone_number]
      - name: seen_at
"""


def write_pack(folder: Path, **files: str) -> Path:
    """Write a pack; ``datamap__shop="..."`` becomes ``datamap/shop.yaml``, dedented.

    Without a data map of its own the pack gets SHOP.
    """
    if not any(name.startswith("datamap__") for name in files):
        files["datamap__shop"] = SHOP
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    return folder


def problems_of(folder: Path) -> list[PackProblem]:
    """The problems of a pack that has some."""
    with pytest.raises(PackError) as caught:
        load_pack(folder)
    return caught.value.problems


def said(folder: Path) -> list[str]:
    """The same as the lines that people read."""
    return [str(one) for one in problems_of(folder)]
