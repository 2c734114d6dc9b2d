"""Names, streets and administrative divisions, read once from the files in ``pools/``."""

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
    """Byte strings to choose from by index.

    Attributes:
        surnames: each as often as it is common; ``pinyin`` goes with it.
        pinyin: romanised surnames.
        firsts: first characters of given names, some of them empty.
        seconds: last characters of given names.
        streets: street names.
        codes: GB/T 2260 codes in force, then the retired ones.
        provinces, cities, districts: their names, by the same index.
        areas: province, city and district in one, as written on a label.
        retired: rows of ``administrative_division`` with the day of retirement.
        active: how many of the codes are in force.
        first_retired: day on which the first of the others was withdrawn.
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
    """Read the pools."""
    surnames = [row for row in _table("surnames.csv") for _ in range(int(row["weight"]))]
    given = _table("given_names.csv")
    divisions = sorted(_table("divisions.csv"), key=lambda row: row["retired_on"] != "")
    streets = (FOLDER / "streets.txt").read_text(encoding="utf-8").split()
    seconds = [row[part] for row in given for part in ("first", "second")]
    return Pools(
        surnames=_strings([row["surname"] for row in surnames]),
        pinyin=_strings([row["pinyin"] for row in surnames]),
        firsts=_strings([*(row["first"] for row in given), *[""] * (len(given) // 6)]),
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
