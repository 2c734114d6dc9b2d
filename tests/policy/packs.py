"""Helpers that write policy packs for tests into a temporary folder."""

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
    """Write the files of a policy pack, and return the folder.

    The argument ``datamap__shop`` is the text of the file ``datamap/shop.yaml``; its indentation is
    removed. A pack without a data map gets the data map SHOP.
    """
    if not any(name.startswith("datamap__") for name in files):
        files["datamap__shop"] = SHOP
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    return folder


def problems_of(folder: Path) -> list[PackProblem]:
    """Load a faulty policy pack and return its problems."""
    with pytest.raises(PackError) as caught:
        load_pack(folder)
    return caught.value.problems


def problem_lines(folder: Path) -> list[str]:
    """Load a faulty policy pack and return each problem as a line of text."""
    return [str(problem) for problem in problems_of(folder)]
