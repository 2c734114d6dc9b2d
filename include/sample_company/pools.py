"""Lists of names, streets and administrative divisions, read once from the files in ``pools/``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from include.sample_company.columns import Strings

FOLDER = Path(__file__).parent / "pools"

# No block of mainland numbers is set aside for fiction; 199 is kept for canaries.
MOBILE_PREFIXES = [
    b"%d" % prefix
    for prefix in (*range(130, 140), 150, 151, 152, 153, 155, 156, 157, 158, 159, *range(180, 190))
]
CANARY_PREFIX = b"199"


@dataclass(frozen=True)
class Pools:
    """Lists of byte strings, from which the generators choose values by index.

    Attributes:
        surnames: surnames. A frequent surname occurs several times.
        pinyin: romanised surnames, at the same index as in ``surnames``.
        firsts: first characters of given names; empty for a given name of one character.
        seconds: last characters of given names.
        streets: street names.
        codes: administrative division codes of GB/T 2260. The codes in force come first, then the
            retired codes.
        provinces: name of each division's province, at the same index as in ``codes``.
        cities: name of each division's city, at the same index as in ``codes``.
        districts: name of each division's district, at the same index as in ``codes``.
        areas: province, city and district of each division as one text, as on a shipping label.
        retired: date on which each code was retired; NULL for a code in force.
        active: number of codes in force.
        first_retired: earliest date on which a code was retired.
    """

    surnames: Strings
    pinyin: Strings
    firsts: Strings
    seconds: Strings
    streets: Strings
    codes: Strings
    provinces: Strings
    cities: Strings
    districts: Strings
    areas: Strings
    retired: Strings
    active: int
    first_retired: np.datetime64


@cache
def pools() -> Pools:
    """Read the lists from the files in ``pools/``. The result is cached."""
    surnames = [row for row in _table("surnames.csv") for _ in range(int(row["weight"]))]
    given_names = _table("given_names.csv")
    divisions = sorted(_table("divisions.csv"), key=lambda row: row["retired_on"] != "")
    streets = (FOLDER / "streets.txt").read_text(encoding="utf-8").split()
    seconds = [row[part] for row in given_names for part in ("first", "second")]
    return Pools(
        surnames=_strings([row["surname"] for row in surnames]),
        pinyin=_strings([row["pinyin"] for row in surnames]),
        firsts=_strings([*(row["first"] for row in given_names), *[""] * (len(given_names) // 6)]),
        seconds=_strings(seconds),
        streets=_strings(streets),
        codes=_strings([row["code"] for row in divisions]),
        provinces=_strings([row["province"] for row in divisions]),
        cities=_strings([row["city"] for row in divisions]),
        districts=_strings([row["district"] for row in divisions]),
        areas=_strings([_area(row) for row in divisions]),
        retired=_strings([row["retired_on"] or r"\N" for row in divisions]),
        active=sum(row["retired_on"] == "" for row in divisions),
        first_retired=np.datetime64(
            min(row["retired_on"] for row in divisions if row["retired_on"])
        ),
    )


def _table(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _area(row: dict[str, str]) -> str:
    city = "" if row["city"] == row["province"] else row["city"]
    return row["province"] + city + row["district"]


def _strings(values: list[str]) -> Strings:
    return np.array([value.encode() for value in values], "S")
