"""Tests of the rule that decides whether two entries name the same person."""

from __future__ import annotations

import ast
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.approvals.approvers import exclude_people, is_among, normalize_person, same_person
from include.service_container import ROOT

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
def test_same_person_is_true_for_different_spellings_of_a_name(spelling: str) -> None:
    assert same_person(spelling, "E00003")
    assert is_among(spelling, ["E00002", "E00003"])
    assert exclude_people(["E00002", spelling], ["e00003"]) == ["E00002"]


@pytest.mark.parametrize("nobody", ["", " ", "\u200b", "\u3164\ufe0f", "\u2800"])
def test_same_person_is_false_for_an_empty_name(nobody: str) -> None:
    assert not same_person(nobody, nobody)
    assert not is_among(nobody, [nobody, "E1"])


def test_same_person_is_false_for_similar_names() -> None:
    assert not same_person("E00003", "E00030")
    assert not same_person("jose", "josé")


@pytest.mark.parametrize(
    ("name", "other"),
    [("पटल", "पटेल"), ("דוד", "דוּד"), ("محمد", "محمّد"), ("กม", "กำ"), ("が", "か"), ("갑", "가")],
)
def test_same_person_is_false_for_names_that_differ_only_in_a_combining_mark(
    name: str, other: str
) -> None:
    assert not same_person(name, other)
    assert same_person(unicodedata.normalize("NFD", other), other)


SIGNS = st.sampled_from("eE\u0301\u034f\u3164\u1100\u1160\u1161\u2800\ufe0f\u00a8ßſ\u1e9e")


@given(st.text(max_size=20) | st.text(SIGNS, max_size=20))
def test_normalize_person_returns_a_normalized_name_unchanged(name: str) -> None:
    compared = normalize_person(name)
    assert normalize_person(compared) == compared
    assert normalize_person(unicodedata.normalize("NFD", name).casefold()) == compared


def test_only_approvers_module_normalizes_names_of_people() -> None:
    others = {
        "approvals/approvers.py",
        "backup/offsite_findings.py",  # sites
        "incident/communication/addresses.py",  # mail addresses
        "orchestration/access/users.py",  # Airflow's own unique columns
        "sampling/workpapers/form.py",  # names of sheets
        "training/uploads/cells.py",
        "training/uploads/reading.py",
        "workbooks/forms.py",
    }
    modules = {
        str(path.relative_to(ROOT / "include"))
        for path in (ROOT / "include").rglob("*.py")
        if _folds(path)
    }
    assert modules == others


def _folds(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr == "casefold"
        for node in ast.walk(ast.parse(path.read_text()))
    )
