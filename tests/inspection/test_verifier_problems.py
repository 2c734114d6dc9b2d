"""Changed packs in Chromium: each problem that the page verify.html can report.

Some changes need the company's key. They stand for an insider who has the key, and for a defect of
the program that seals.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.evidence.signing import Signer, generate_key
from include.inspection import verifier
from tests.inspection.inspector import (
    Inspector,
    bundle,
    changed_manifest,
    cut_row,
    name_of,
    renewed_list,
)
from tests.inspection.support import WORKFLOW
from tests.reports.test_browser import CHROMIUM

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]

LEDGER = "chain/ledger.txt"


@dataclass
class Forger:
    """A person who changes an unpacked pack, with the key of the company or without it.

    Attributes:
        folder: the unpacked pack.
        signer: the key of the company.
        expected: fingerprints that the inspector enters.
    """

    folder: Path
    signer: Signer
    expected: str

    @property
    def key(self) -> Path:
        return self.folder / "keys" / f"{self.signer.fingerprint}.pem"

    @property
    def sums(self) -> Path:
        """The list of files of the bundle of August, row 5 of the evidence ledger."""
        return bundle(self.folder) / "SHA256SUMS"

    def lines(self) -> list[str]:
        return (self.folder / LEDGER).read_text().splitlines()

    def write_lines(self, lines: list[str]) -> None:
        (self.folder / LEDGER).write_text("".join(f"{line}\n" for line in lines))

    def signed(self, record: str, row: dict[str, Any], signer: Signer | None = None) -> str:
        """Return a line of the ledger with a signature."""
        content = json.dumps([record, row], separators=(",", ":"), sort_keys=True)
        signature = (signer or self.signer).sign(content.encode())
        return f"{base64.b64encode(signature).decode()}\t{content}"

    def change_row(self, signer: Signer | None = None, **values: Any) -> None:
        """Change values of row 5, and sign the row again."""
        lines = self.lines()
        record, row = json.loads(lines[4].partition("\t")[2])
        assert row["seq"] == 5
        lines[4] = self.signed(record, row | values, signer)
        self.write_lines(lines)

    def change_list(self, signer: Signer | None = None, link: str | None = None) -> None:
        """Write the list of files again with the current digests of the files, and sign it.

        Args:
            signer: the key; by default that of the company.
            link: another digest of the bundle before it in the chain.
        """
        lines = []
        for line in self.sums.read_text().splitlines():
            digest, _, name = line.partition("  ")
            if name.startswith(".."):
                digest = link or digest
            else:
                digest = hashlib.sha256((self.sums.parent / name).read_bytes()).hexdigest()
            lines.append(f"{digest}  {name}\n")
        self.sums.write_text("".join(lines))
        signature = (signer or self.signer).sign(self.sums.read_bytes())
        self.sums.with_name("SHA256SUMS.sig").write_bytes(signature)

    def leave_out_row(self, *workflows: str) -> None:
        """Remove row 4, and name workflows for it in manifest.json."""
        cut_row(self.folder, 4)
        named = [{"name": name, "title": {"en": name, "zh-CN": name}} for name in workflows]
        changed_manifest(self.folder, ledger_rows_left_out=1, ledger_workflows_left_out=named)

    def enter_list(self) -> None:
        """Enter the digest of the list of files in row 5."""
        self.change_row(sums_sha256=hashlib.sha256(self.sums.read_bytes()).hexdigest())


Harm = Callable[[Forger], Path | str]
HARMS: dict[str, Harm] = {}


def harm(key: str) -> Callable[[Harm], Harm]:
    """Register a change, which returns the file at which the page has to report the problem."""

    def register(change: Harm) -> Harm:
        assert key not in HARMS
        HARMS[key] = change
        return change

    return register


def other_key() -> Signer:
    return Signer.from_pem(generate_key())


@harm("missing")
def remove_result(forger: Forger) -> Path:
    file = forger.sums.with_name("result.json")
    file.unlink()
    return file


@harm("changed")
def change_letter(forger: Forger) -> Path:
    file = forger.folder / "cover-letter.en.docx"
    file.write_bytes(b"another letter")
    return file


@harm("added")
def add_file_beside_the_bundles(forger: Forger) -> Path:
    file = forger.folder / "bundles" / "stray.txt"
    file.write_text("x")
    renewed_list(forger.folder)
    return file


@harm("unreadable")
def enlarge_key(forger: Forger) -> Path:
    forger.key.write_bytes(forger.signer.public_pem + b"\n" * 5000)
    return forger.key


@harm("not_a_key")
def damage_key(forger: Forger) -> Path:
    forger.key.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    return forger.key


@harm("other_key")
def replace_key(forger: Forger) -> Path:
    forger.key.write_bytes(other_key().public_pem)
    return forger.key


@harm("no_key")
def remove_keys(forger: Forger) -> str:
    shutil.rmtree(forger.folder / "keys")
    return "keys/"


@harm("bad_fingerprint")
def mistype_fingerprint(forger: Forger) -> str:
    forger.expected = "unknown"
    return "keys/"


@harm("unexpected_key")
def expect_another_key(forger: Forger) -> Path:
    forger.expected = "ab" * 32
    return forger.key


@harm("period_differs")
def shorten_period(forger: Forger) -> str:
    changed_manifest(forger.folder, since="2026-09-01T00:00:00+08:00")
    return "manifest.json"


@harm("not_a_manifest")
def empty_manifest(forger: Forger) -> str:
    (forger.folder / "manifest.json").write_text("{}")
    return "manifest.json"


@harm("checkpoint_changed")
def pretend_retention(forger: Forger) -> str:
    zero = base64.b64encode(bytes(64)).decode()
    line = f'{zero}\t["evidence_checkpoint",{{"up_to_seq":8}}]'
    forger.write_lines([line, *forger.lines()])
    return LEDGER


@harm("foreign_signature")
def sign_list_with_another_key(forger: Forger) -> Path:
    key = other_key()
    (forger.folder / "keys" / f"{key.fingerprint}.pem").write_bytes(key.public_pem)
    forger.change_list(key)
    return forger.sums


@harm("row_changed")
def add_note_to_row(forger: Forger) -> str:
    lines = forger.lines()
    lines[4] = lines[4].replace('"seq":5,', '"seq":5,"note":"",')
    forger.write_lines(lines)
    return LEDGER


@harm("foreign_row")
def sign_row_with_another_key(forger: Forger) -> str:
    key = other_key()
    (forger.folder / "keys" / f"{key.fingerprint}.pem").write_bytes(key.public_pem)
    forger.change_row(key)
    return LEDGER


@harm("bad_line")
def add_line_to_ledger(forger: Forger) -> str:
    forger.write_lines([*forger.lines(), "no row"])
    return LEDGER


@harm("chain_broken")
def break_chain(forger: Forger) -> str:
    forger.change_row(previous_sums_sha256="0" * 64)
    return LEDGER


@harm("wrong_order")
def repeat_row(forger: Forger) -> str:
    lines = forger.lines()
    forger.write_lines([*lines[:5], *lines[3:]])
    return LEDGER


@harm("rows_missing")
def remove_row(forger: Forger) -> str:
    cut_row(forger.folder, 4)
    return LEDGER


@harm("rows_before_missing")
def remove_first_rows(forger: Forger) -> str:
    forger.write_lines(forger.lines()[4:])
    return LEDGER


@harm("no_rows")
def empty_ledger(forger: Forger) -> str:
    forger.write_lines([])
    return LEDGER


@harm("gap_differs")
def understate_gap(forger: Forger) -> str:
    cut_row(forger.folder, 4)
    return LEDGER


@harm("gap_unnamed")
def leave_out_row_of_no_workflow(forger: Forger) -> str:
    forger.leave_out_row()
    return LEDGER


@harm("left_out_present")
def leave_out_row_of_a_shown_workflow(forger: Forger) -> str:
    forger.leave_out_row(WORKFLOW)
    return LEDGER


@harm("left_out_other")
def leave_out_row_of_another_workflow(forger: Forger) -> Path:
    forger.leave_out_row("elsewhere")
    return forger.sums


@harm("not_signed")
def change_list_without_the_key(forger: Forger) -> Path:
    forger.change_list(other_key())
    return forger.sums


@harm("other_signer")
def name_another_key_in_row(forger: Forger) -> Path:
    forger.change_row(key_fingerprint="ab" * 32)
    return forger.sums.with_name("SHA256SUMS.sig")


@harm("swapped")
def swap_bundles(forger: Forger) -> Path:
    first, second = bundle(forger.folder, 7), bundle(forger.folder, 9)
    first.rename(forger.folder / "aside")
    second.rename(first)
    (forger.folder / "aside").rename(second)
    return first / "SHA256SUMS"


@harm("differs_from_row")
def seal_changed_report_without_row(forger: Forger) -> Path:
    forger.sums.with_name("report.en.html").write_text("another report")
    forger.change_list()
    return forger.sums


@harm("no_row")
def move_bundle(forger: Forger) -> Path:
    moved = bundle(forger.folder).with_name("moved")
    forger.sums.with_name("report.en.html").write_text("another report")
    forger.change_list()
    bundle(forger.folder).rename(moved)
    return moved / "SHA256SUMS"


@harm("link_broken")
def link_list_to_another_bundle(forger: Forger) -> Path:
    forger.change_list(link="0" * 64)
    forger.enter_list()
    return forger.sums


@harm("result_differs")
def seal_another_outcome_than_the_row(forger: Forger) -> Path:
    file = forger.sums.with_name("result.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"outcome": "fail"}))
    forger.change_list()
    forger.enter_list()
    return file


@harm("missing_bundle")
def remove_bundle(forger: Forger) -> str:
    removed = bundle(forger.folder)
    shutil.rmtree(removed)
    return f"{name_of(removed, forger.folder)}/"


@pytest.mark.parametrize("key", HARMS)
def test_page_reports_the_problem_at_the_file_that_was_changed(
    inspector: Inspector, folder: Path, signer: Signer, key: str
) -> None:
    forger = Forger(folder, signer, signer.fingerprint)
    changed = HARMS[key](forger)
    file = changed if isinstance(changed, str) else name_of(changed, folder)
    check = inspector.check(folder, expected=forger.expected)
    assert check.verdict == "bad"
    text = re.escape(verifier.TEXTS[key].text)
    pattern = re.compile(re.sub(r"\\\{\w+\\\}", ".+", text))
    assert any(pattern.fullmatch(problem) for problem in check.problems.get(file, [])), (
        check.problems
    )


def test_each_problem_of_the_page_is_caused_by_a_change_of_this_file() -> None:
    script = (Path(verifier.__file__).parent / "assets" / "check.js").read_text(encoding="utf-8")
    calls = re.findall(r"this\.problem\(([^;]*)\);", script)
    keys = {key for call in calls for key in re.findall(r'"([a-z_]+)"', call)}
    assert keys == set(HARMS)
