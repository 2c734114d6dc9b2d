"""One rule says whether two entries name the same person."""

from __future__ import annotations

import ast
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.approvals.people import as_compared, is_among, same_person, without
from include.workplace import ROOT

SPELLINGS = [
    "E00003",
    "e00003",
    " E00003 ",
    "Ｅ００００３",
    "E0\u200b0003",
    "e0000\u00ad3",
    "E000 03",
    *(f"E0000{sign}3" for sign in "\ufe0f\u034f\u3164\uffa0\u2800\u115f\u180b\U000e0101\U000e0041"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_one_account_name_one_person(spelling: str) -> None:
    """Case, full width, blanks and invisible characters make no difference."""
    assert same_person(spelling, "E00003")
    assert is_among(spelling, ["E00002", "E00003"])
    assert without(["E00002", spelling], ["e00003"]) == ["E00002"]


@pytest.mark.parametrize("nobody", ["", " ", "\u200b", "\u3164\ufe0f", "\u2800"])
def test_an_empty_entry_names_nobody(nobody: str) -> None:
    """Not even another empty one."""
    assert not same_person(nobody, nobody)
    assert not is_among(nobody, [nobody, "E1"])


def test_similar_names_name_different_people() -> None:
    """Accents and digits make a difference."""
    assert not same_person("E00003", "E00030")
    assert not same_person("jose", "josé")


@pytest.mark.parametrize(
    ("name", "other"),
    [("पटल", "पटेल"), ("דוד", "דוּד"), ("محمد", "محمّد"), ("กม", "กำ"), ("が", "か"), ("갑", "가")],
)
def test_names_that_differ_by_a_combining_mark_name_different_people(name: str, other: str) -> None:
    """As scripts that write vowels or doubled letters as marks need it."""
    assert not same_person(name, other)
    assert same_person(unicodedata.normalize("NFD", other), other)


SIGNS = st.sampled_from("eE\u0301\u034f\u3164\u1100\u1160\u1161\u2800\ufe0f\u00a8ßſ\u1e9e")


@given(st.text(max_size=20) | st.text(SIGNS, max_size=20))
def test_compared_form_of_a_name_stays_the_same_when_compared_again(name: str) -> None:
    """Also when the name is in small letters."""
    compared = as_compared(name)
    assert as_compared(compared) == compared
    assert as_compared(unicodedata.normalize("NFD", name).casefold()) == compared


def test_no_other_module_folds_the_names_of_people() -> None:
    """Other modules fold the case of other things: headers, mail domains, sheets, sites, words."""
    others = {
        "approvals/people.py",
        "backup/offsite_findings.py",  # sites
        "incident/telling/addresses.py",  # mail addresses
        "orchestration/access/users.py",  # Airflow's own unique columns
        "sampling/workpapers/form.py",  # names of sheets
        "training/uploads/cells.py",
        "training/uploads/reading.py",
        "workbooks/forms.py",
    }
    found = {
        str(path.relative_to(ROOT / "include"))
        for path in (ROOT / "include").rglob("*.py")
        if _folds(path)
    }
    assert found == others


def _folds(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr == "casefold"
        for node in ast.walk(ast.parse(path.read_text()))
    )
