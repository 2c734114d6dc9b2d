"""Inspection packs of a real evidence store: content, verification, and failures while packing."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook
from sqlalchemy import update

from include.evidence import ledger
from include.evidence.model import Finding, Outcome, failure_finding
from include.evidence.signing import Signer, generate_key
from include.inspection.instructions import commands
from include.inspection.request import request_of
from include.inspection.zip_stream import ZipStream
from include.messages import verbatim
from include.policy import PolicyPack
from include.reports.i18n import LOCALES, Translator
from include.reports.letterhead import letterhead_of
from include.services.clock import FixedClock
from include.services.errors import UsageError
from include.services.objectstore.base import StoredObject, StoreError
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.findings import finding
from include.state.tables import evidence_control, evidence_ledger
from tests.evidence.support import Evidence
from tests.inspection.support import (
    NOW,
    OTHER_WORKFLOW,
    POLICY,
    QUARTER,
    WORKFLOW,
    PackMaker,
)
from tests.support.registers import unguarded
from tests.support.s3 import MotoServer, client_for, new_bucket

COMMON = {
    "HOW-TO-CHECK.txt",
    "chain/ledger.txt",
    "cover-letter.en.docx",
    "cover-letter.en.pdf",
    "cover-letter.zh-CN.docx",
    "cover-letter.zh-CN.pdf",
    "index.en.xlsx",
    "index.zh-CN.xlsx",
    "manifest.json",
    "pack.sha256",
    "summary.en.docx",
    "summary.en.pdf",
    "summary.zh-CN.docx",
    "summary.zh-CN.pdf",
    "verify.html",
}


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def word_text(file: Path) -> str:
    """Return the texts of a Word file."""
    with zipfile.ZipFile(file) as archive:
        return archive.read("word/document.xml").decode()


def grid(file: Path) -> list[list[Any]]:
    return [list(row) for row in sheet_of(file).iter_rows(values_only=True)]


def sheet_of(file: Path) -> Any:
    return load_workbook(file).active


def run_commands(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the commands of HOW-TO-CHECK.txt, in the form of the file."""
    lines = commands(manifest_of(folder)["keys"])
    instructions = (folder / "HOW-TO-CHECK.txt").read_text()
    assert all(f"    {line}\n" in instructions for line in lines)
    return subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", "\n".join(lines)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.pdf
def test_pack_contains_every_file_of_each_bundle_of_clause_and_period_unchanged(
    maker: PackMaker,
) -> None:
    folders = maker.quarter()
    pack = maker.pack()
    folder = maker.unpacked(pack)
    packed = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    stored = {
        f"bundles/{path.relative_to(maker.evidence.root).as_posix()}": path
        for name in folders
        for path in (maker.evidence.root / name).rglob("*")
        if path.is_file()
    }
    key = f"keys/{maker.evidence.signer.fingerprint}.pem"
    assert packed == COMMON | {key} | stored.keys()
    for name, path in stored.items():
        assert (folder / name).read_bytes() == path.read_bytes()
    assert [bundle.row.bundle for bundle in pack.bundles] == folders
    assert pack.not_verified == []
    assert pack.not_created == {}
    entries = manifest_of(folder)["bundles"]
    assert [entry["folder"] for entry in entries] == [f"bundles/{name}" for name in folders]
    assert [entry["verified"] for entry in entries] == [True, True, True]
    assert [entry["findings"] for entry in entries] == [0, 1, 0]
    for name in ("cover-letter.en.pdf", "summary.zh-CN.pdf"):
        assert (folder / name).read_bytes().startswith(b"%PDF-")


def test_ledger_rows_reach_from_before_to_after_the_period(maker: PackMaker) -> None:
    """So the first and the last bundle of the period have neighbours that prove the edges."""
    maker.quarter()
    folder = maker.unpacked(maker.pack(period=(date(2026, 7, 10), date(2026, 8, 10))))
    lines = (folder / "chain" / "ledger.txt").read_text().splitlines()
    rows = [json.loads(line.split("\t")[1])[1] for line in lines]
    assert [row["seq"] for row in rows] == [2, 3, 4, 5, 6]


def test_commands_of_the_pack_accept_it_and_name_tampered_files(maker: PackMaker) -> None:
    maker.quarter()
    folder = maker.unpacked(maker.pack())
    good = run_commands(folder)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.split() == [maker.evidence.signer.fingerprint, "-"]
    sums = next(folder.glob("bundles/*/2026/08/*/SHA256SUMS"))
    (sums.parent / "report.en.html").write_bytes(b"<p>better</p>")
    sums.write_bytes(sums.read_bytes().replace(b"a", b"b"))
    rows = folder / "chain" / "ledger.txt"
    rows.write_text(rows.read_text().replace('"outcome":"attention"', '"outcome":"pass"'))
    bad = run_commands(folder)
    assert "report.en.html: FAILED" in bad.stdout
    assert f"NOT SIGNED: ./{sums.relative_to(folder).as_posix()}" in bad.stdout
    assert 'NOT SIGNED: ["evidence_ledger"' in bad.stdout


def test_letter_names_company_period_clause_and_fingerprint_in_both_languages(
    maker: PackMaker,
) -> None:
    maker.quarter()
    folder = maker.unpacked(maker.pack())
    fingerprint = maker.evidence.signer.fingerprint
    english = word_text(folder / "cover-letter.en.docx")
    chinese = word_text(folder / "cover-letter.zh-CN.docx")
    policy = letterhead_of(POLICY.company)
    assert policy is not None
    assert policy.policy is not None
    stated = {locale: Translator(locale).text(policy.policy) for locale in LOCALES}
    for words in ("Sample Courier Co.", "1 Sample Road", "2026-07-01 to 2026-09-30", "5.3 "):
        assert words in english, words
    assert f"Policy and version: {stated['en']}" in english
    assert stated["zh_CN"] in chinese
    for words in ("示例快递有限公司", "2026-07-01 至 2026-09-30", "检查资料移交函"):
        assert words in chinese, words
    for letter_text in (english, chinese):
        assert f"{fingerprint[:8]} {fingerprint[8:16]}" in letter_text


def test_bundle_that_does_not_verify_is_in_the_pack_and_marked_in_red(maker: PackMaker) -> None:
    folders = maker.quarter()
    changed = maker.evidence.root / folders[1] / "report.en.html"
    changed.write_bytes(b"<p>better</p>")
    pack = maker.pack()
    folder = maker.unpacked(pack)
    assert pack.not_verified == [folders[1]]
    assert (folder / "bundles" / folders[1] / "report.en.html").read_bytes() == b"<p>better</p>"
    entry = manifest_of(folder)["bundles"][1]
    assert entry["verified"] is False
    assert "report.en.html was changed" in entry["problem"]
    for name in ("cover-letter.en.docx", "summary.en.docx"):
        document = word_text(folder / name)
        assert "Bundles of this pack that do not verify: 1." in document
        assert f"bundles/{folders[1]}" in document
        assert "report.en.html was changed" in document
    sheet = sheet_of(folder / "index.en.xlsx")
    rows = [row for row in sheet.iter_rows() if row[0].value in {3, 5, 7}]
    fills = [row[6].fill.fgColor.rgb for row in rows]
    assert [row[6].value for row in rows] == ["verifies", "DOES NOT VERIFY", "verifies"]
    assert [fill == "FFF6C7C7" for fill in fills] == [False, True, False]


@pytest.mark.parametrize("harm", ["deleted", "swapped", "signature", "other key"])
def test_damaged_bundles_are_named_as_not_verified(maker: PackMaker, harm: str) -> None:
    folders = maker.quarter()
    target = maker.evidence.root / folders[1]
    sources: dict[str, Any] = {}
    bad = [folders[1]]
    if harm == "deleted":
        for path in [*target.rglob("*")]:
            if path.is_file():
                path.unlink()
    elif harm == "swapped":
        other = maker.evidence.root / folders[0]
        target.rename(target.with_name("aside"))
        other.rename(target)
        target.with_name("aside").rename(other)
        bad = folders[:2]
    elif harm == "signature":
        (target / "SHA256SUMS.sig").write_bytes(bytes(64))
    else:
        sources["trusted"] = [Signer.from_pem(generate_key()).public_pem]
        bad = [row.bundle for row in ledger.rows(maker.evidence.conn)]
    pack = maker.pack(**sources)
    maker.write(pack)
    assert pack.not_verified == bad


def test_bundle_with_a_changed_ledger_row_is_in_the_pack_as_not_verified(maker: PackMaker) -> None:
    """Even if the change moved the row out of the clause, because the row proves nothing now."""
    folders = maker.quarter()
    row = evidence_ledger.c.bundle == folders[1]
    change = update(evidence_ledger).where(row).values(controls=["backup.offsite"])
    maker.evidence.tamper(change)
    pack = maker.pack()
    folder = maker.unpacked(pack)
    assert pack.not_verified == [folders[1]]
    assert manifest_of(folder)["ledger_rows_changed"] == [5]
    document = word_text(folder / "summary.en.docx")
    assert "Rows that were changed after they were signed: 1." in document


def test_deleted_ledger_rows_of_the_period_are_counted_in_letter_and_manifest(
    maker: PackMaker,
) -> None:
    maker.quarter()
    maker.evidence.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq.in_([4, 5])))
    folder = maker.unpacked(maker.pack())
    assert manifest_of(folder)["ledger_rows_missing"] == 2
    assert "Missing rows: 2." in word_text(folder / "cover-letter.en.docx")


def test_letter_of_a_year_without_runs_states_that_no_bundle_was_sealed(maker: PackMaker) -> None:
    maker.quarter()
    pack = maker.pack(period=(date(2025, 1, 1), date(2025, 12, 31)))
    folder = maker.unpacked(pack)
    assert pack.bundles == []
    for name in ("cover-letter", "summary"):
        words = word_text(folder / f"{name}.en.docx")
        assert "This pack contains no evidence of the period." in words
        assert "contains no evidence bundle" in words
        assert "本资料包不含该期间的任何证据。" in word_text(folder / f"{name}.zh-CN.docx")
    assert "This pack contains no evidence of the period." in str(grid(folder / "index.en.xlsx"))
    assert "No bundle was sealed" in str(grid(folder / "index.en.xlsx"))
    assert not (folder / "bundles").exists()
    good = run_commands(folder)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.split() == [maker.evidence.signer.fingerprint, "-"]


def test_pack_of_an_empty_ledger_has_no_rows_and_no_bundles(maker: PackMaker) -> None:
    folder = maker.unpacked(maker.pack())
    assert (folder / "chain" / "ledger.txt").read_bytes() == b""


def test_bundles_removed_after_retention_are_named_and_do_not_count_as_not_verified(
    maker: PackMaker,
) -> None:
    folders = maker.quarter()
    maker.evidence.prune(before_seq=5, clock=FixedClock(datetime(2026, 10, 6, tzinfo=UTC)))
    pack = maker.pack()
    folder = maker.unpacked(pack)
    assert pack.not_verified == []
    assert [bundle.is_removed for bundle in pack.bundles] == [True, False, False]
    assert not (folder / "bundles" / folders[0]).exists()
    entry = manifest_of(folder)["bundles"][0]
    assert (entry["removed_after_retention"], entry["verified"], entry["folder"]) == (
        True,
        None,
        None,
    )
    assert "files removed at the end of their retention period" in str(
        grid(folder / "index.en.xlsx")
    )
    first = (folder / "chain" / "ledger.txt").read_text().splitlines()[0]
    assert '["evidence_checkpoint"' in first


def test_workflows_that_the_recipient_may_not_read_are_named_and_left_out(
    maker: PackMaker,
) -> None:
    maker.quarter()
    pack = maker.pack("5.3", "4.2", may_read=lambda name: name != OTHER_WORKFLOW)
    folder = maker.unpacked(pack)
    assert {bundle.row.dag_id for bundle in pack.bundles} == {WORKFLOW}
    assert not (folder / "bundles" / OTHER_WORKFLOW).exists()
    assert OTHER_WORKFLOW not in (folder / "chain" / "ledger.txt").read_text()
    manifest = manifest_of(folder)
    assert [entry["name"] for entry in manifest["workflows_left_out"]] == [OTHER_WORKFLOW]
    assert [entry["name"] for entry in manifest["ledger_workflows_left_out"]] == [OTHER_WORKFLOW]
    assert manifest["ledger_rows_left_out"] == 3
    assert (manifest["ledger_first"], manifest["ledger_last"]) == (1, 8)
    english = word_text(folder / "cover-letter.en.docx")
    assert "Workflows left out" in english
    assert "Off-site backup" in english
    assert "rows of the evidence ledger (3)" in english


QUALITY = "check_quality"


def about(clause: str, subject: str = "orders") -> Finding:
    """Return a failure about a clause."""
    return failure_finding(
        code="quality.late",
        subject=subject,
        message=verbatim(f"{subject} are late"),
        action=verbatim("Correct them."),
        clause=clause,
        step="check",
    )


def sealed_findings(maker: PackMaker) -> list[str]:
    """Seal bundles of a workflow without controls of clause 5.3 that report findings about it.

    Returns:
        The folders of the bundles of June, July and August. The bundle of July is not the first or
        the newest report.
    """
    maker.quarter()
    days = [date(2026, 6, 21), date(2026, 7, 21), date(2026, 8, 21)]
    folders = [
        maker.seal(day, QUALITY, outcome=Outcome.FAIL, findings=[about("5.3")]).path for day in days
    ]
    maker.seal(date(2026, 8, 22), QUALITY, outcome=Outcome.FAIL, findings=[about("4.1", "parcels")])
    maker.seal(
        date(2026, 10, 7), QUALITY, outcome=Outcome.FAIL, findings=[about("5.3", "couriers")]
    )
    maker.follow()
    return folders


def test_pack_names_findings_about_the_clause_and_contains_their_bundles_of_the_period(
    maker: PackMaker,
) -> None:
    """Although the workflow has no control of the clause."""
    june, july, august = sealed_findings(maker)
    pack = maker.pack()
    folder = maker.unpacked(pack)
    packed = {bundle.row.bundle for bundle in pack.bundles}
    assert august in packed
    assert packed.isdisjoint({june, july})
    assert pack.not_verified == []
    manifest = manifest_of(folder)
    [entry] = [entry for entry in manifest["findings"] if entry["workflow"] == QUALITY]
    assert (entry["clause"], entry["severity"], entry["closed"]) == ("5.3", "fail", False)
    assert [(report["folder"], report["in_pack"]) for report in entry["reports"]] == [
        (f"bundles/{june}", False),
        (f"bundles/{august}", True),
    ]
    summary = word_text(folder / "summary.en.docx")
    assert "orders are late" in summary
    assert f"(not in the pack): bundles/{june}" in summary
    assert f"(in the pack): bundles/{august}" in summary
    assert "parcels are late" not in summary
    assert "couriers are late" not in summary
    label = "Bundles of other clauses whose runs reported findings about these clauses"
    assert label in word_text(folder / "cover-letter.en.docx")
    sheet = load_workbook(folder / "index.en.xlsx")["Findings"]
    rows = [list(row)[3:] for row in sheet.iter_rows(values_only=True)]
    numbers = {report["folder"]: report["number"] for report in entry["reports"]}
    for bundle, words in ((june, "no"), (august, "yes")):
        name = f"bundles/{bundle}"
        assert next(row[:3] for row in rows if row[4] == name) == [
            "orders are late",
            "Failed",
            "open; due date: 2026-07-05",
        ]
        assert [numbers[name], name, words] in [row[3:] for row in rows]


def test_findings_that_were_closed_in_the_period_are_named_as_closed(maker: PackMaker) -> None:
    sealed_findings(maker)
    closed = update(finding).where(finding.c.clause == "5.3")
    conn = maker.evidence.conn
    with unguarded(conn, "finding"):
        conn.execute(closed.values(closed_at=datetime(2026, 9, 2, 17, tzinfo=UTC)))
    conn.commit()
    summary = word_text(maker.unpacked(maker.pack()) / "summary.en.docx")
    assert "orders are late" in summary
    assert "closed on 2026-09-03" in summary
    later = maker.pack(period=(date(2026, 9, 4), date(2026, 9, 30)))
    maker.write(later)
    assert [entry["clause"] for entry in later._manifest()["findings"]] == [""]


def test_findings_of_workflows_that_the_recipient_may_not_read_are_left_out(
    maker: PackMaker,
) -> None:
    sealed_findings(maker)
    pack = maker.pack(may_read=lambda name: name != QUALITY)
    folder = maker.unpacked(pack)
    assert {entry["workflow"] for entry in manifest_of(folder)["findings"]} == {WORKFLOW}
    assert "orders are late" not in word_text(folder / "summary.en.docx")
    assert QUALITY not in {bundle.row.dag_id for bundle in pack.bundles}
    assert manifest_of(folder)["workflows_left_out"] == []


def test_pack_without_findings_states_that_the_register_has_none(maker: PackMaker) -> None:
    maker.seal(date(2026, 7, 10))
    summary = word_text(maker.unpacked(maker.pack()) / "summary.en.docx")
    assert "The register of findings has no finding about these clauses" in summary


def without_controls(workflow: str) -> PolicyPack:
    """Return the policy pack without the controls of a workflow."""
    kept = tuple(control for control in POLICY.controls if control.workflow != workflow)
    return POLICY.model_copy(update={"controls": kept})


def test_bundles_of_controls_that_the_policy_pack_no_longer_has_are_in_the_pack(
    maker: PackMaker,
) -> None:
    """Else a failed drill would disappear with its control."""
    maker.seal(date(2026, 7, 3), "backup_offsite")
    maker.seal(date(2026, 7, 4), "drill_restore", outcome=Outcome.FAIL)
    pack = maker.pack("4.2", policy=without_controls("drill_restore"))
    folder = maker.unpacked(pack)
    assert [bundle.row.dag_id for bundle in pack.bundles] == ["backup_offsite", "drill_restore"]
    removed = sorted(control.id for control in POLICY.controls_of("drill_restore"))
    manifest = manifest_of(folder)
    assert manifest["controls_removed"] == removed
    assert set(removed) < set(manifest["controls"])
    assert "drill_restore" in manifest["workflows"]
    letter = word_text(folder / "cover-letter.en.docx")
    assert "Controls that the policy pack no longer assigns to these clauses" in letter
    assert all(control in letter for control in removed)
    index = grid(folder / "index.en.xlsx")
    assert f"no longer assigns to these clauses: {', '.join(removed)}" in str(index)
    assert [row[3].partition(" ")[0] for row in index[-2:]] == ["4.2", "4.2"]


def test_pack_of_a_clause_that_only_sealed_bundles_know_contains_them(maker: PackMaker) -> None:
    folders = maker.quarter()
    pack = maker.pack(policy=without_controls(WORKFLOW))
    maker.write(pack)
    assert [bundle.row.bundle for bundle in pack.bundles] == folders


def test_bundles_of_a_control_that_belongs_to_another_clause_now_are_in_both_packs(
    maker: PackMaker,
) -> None:
    folders = maker.quarter()
    moved = tuple(
        control.model_copy(update={"clause": "4.2"}) if control.workflow == WORKFLOW else control
        for control in POLICY.controls
    )
    for clause in ("5.3", "4.2"):
        pack = maker.pack(clause, policy=POLICY.model_copy(update={"controls": moved}))
        maker.write(pack)
        assert set(folders) <= {bundle.row.bundle for bundle in pack.bundles}


def test_bundles_without_controls_of_workflows_of_the_clause_are_in_the_pack_and_counted(
    maker: PackMaker,
) -> None:
    """A run that could not run names no control."""
    for workflow in (WORKFLOW, OTHER_WORKFLOW):
        maker.seal(date(2026, 7, 3), workflow, outcome=Outcome.FAIL, controls=())
    pack = maker.pack()
    folder = maker.unpacked(pack)
    assert [bundle.row.dag_id for bundle in pack.bundles] == [WORKFLOW]
    letter = word_text(folder / "cover-letter.en.docx")
    assert "Bundles of runs that name no control, such as runs that could not run" in letter


def test_letter_counts_bundles_that_the_history_index_lacks(maker: PackMaker) -> None:
    """Controls that only such bundles name may be unknown."""
    maker.quarter()
    words = "Bundles that were not searched for removed controls"
    folder = maker.unpacked(maker.pack())
    assert words not in word_text(folder / "cover-letter.en.docx")
    with unguarded(maker.evidence.conn, "evidence_control"):
        row = evidence_control.c.seq == 5
        maker.evidence.conn.execute(evidence_control.delete().where(row))
    folder = maker.unpacked(maker.pack())
    assert words in word_text(folder / "cover-letter.en.docx")


def test_names_that_are_not_safe_in_a_zip_file_are_left_out_and_reported(
    maker: PackMaker,
) -> None:
    folders = maker.quarter()
    bundle = maker.evidence.root / folders[0]
    (bundle / "..\\..\\evil.bat").write_text("x")
    pack = maker.pack()
    with zipfile.ZipFile(maker.write(pack)) as archive:
        names = archive.namelist()
    assert not any("evil" in name for name in names)
    assert all(
        not name.startswith("/") and ".." not in name.split("/") and "\\" not in name
        for name in names
    )
    assert pack.not_verified == [folders[0]]
    assert pack.bundles[0].left_out == 1


def test_symbolic_links_in_the_store_are_not_followed(maker: PackMaker, tmp_path: Path) -> None:
    folders = maker.quarter()
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    report = maker.evidence.root / folders[0] / "report.en.html"
    report.unlink()
    report.symlink_to(secret)
    pack = maker.pack()
    folder = maker.unpacked(pack)
    assert pack.not_verified == [folders[0]]
    assert not (folder / "bundles" / folders[0] / "report.en.html").exists()


def test_texts_of_the_index_are_never_formulas(maker: PackMaker) -> None:
    maker.quarter()
    pack = maker.pack(title_of=lambda name: verbatim(f'=HYPERLINK("http://x","{name}")'))
    folder = maker.unpacked(pack)
    sheet = sheet_of(folder / "index.en.xlsx")
    cells = [cell for row in sheet.iter_rows() for cell in row if "HYPERLINK" in str(cell.value)]
    assert len(cells) == 3
    assert {cell.data_type for cell in cells} == {"s"}
    assert all(cell.quotePrefix for cell in cells)


def test_pdf_files_that_cannot_be_created_are_replaced_by_web_pages_and_named(
    maker: PackMaker,
) -> None:
    pack = maker.pack()
    folder = maker.unpacked(pack)
    assert set(pack.not_created) == {name for name in COMMON if name.endswith(".pdf")}
    assert (folder / "cover-letter.en.html").exists()
    assert manifest_of(folder)["not_created"]["summary.en.pdf"] == "Left out, to save time."


class FailingStore(DirectoryStore):
    """A directory store that is away from the given read on."""

    def __init__(self, root: Path, reads: int) -> None:
        super().__init__(root)
        self.reads = reads

    def open_reader(self, key: str, *, version_id: str = "") -> Any:
        self._count()
        return super().open_reader(key, version_id=version_id)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self._count()
        return super().list(prefix)

    def _count(self) -> None:
        self.reads -= 1
        if self.reads < 0:
            raise StoreError("The evidence store is away.")


@pytest.mark.parametrize("reads", [0, 1, 9])
def test_store_that_fails_while_packing_leaves_no_file(maker: PackMaker, reads: int) -> None:
    """An earlier pack under the same name stays as it is."""
    maker.quarter()
    earlier = maker.folder / "pack.zip"
    earlier.write_bytes(b"earlier")
    pack = maker.pack(store=FailingStore(maker.evidence.root, reads))
    with pytest.raises(StoreError):
        maker.write(pack)
    assert [path.name for path in maker.folder.iterdir()] == ["pack.zip"]
    assert earlier.read_bytes() == b"earlier"


def test_abandoned_pack_closes_its_files(maker: PackMaker) -> None:
    maker.seal(QUARTER[0], files={"big.bin": bytes(5 * 1024 * 1024)})
    chunks = maker.pack().chunks()
    next(chunks)
    next(chunks)
    chunks.close()
    assert list(chunks) == []


def test_file_in_a_folder_that_does_not_exist_is_refused(maker: PackMaker) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        maker.write(maker.pack(), "nowhere/pack.zip")
    with pytest.raises(UsageError, match="is a folder"):
        maker.write(maker.pack(), "")


@pytest.mark.parametrize(
    ("clauses", "period", "words"),
    [
        ((), QUARTER, "No clause"),
        (tuple(map(str, range(51))), QUARTER, "51 clauses"),
        (("99.9",), QUARTER, "'99.9'"),
        (("5.3",), (QUARTER[1], QUARTER[0]), "is after the last day"),
        (("5.3",), (date(1969, 12, 31), QUARTER[1]), "must lie between"),
    ],
)
def test_request_with_unknown_or_too_many_clauses_or_a_wrong_period_is_refused(
    clauses: tuple[str, ...], period: tuple[date, date], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        request_of(POLICY, clauses, *period)


@pytest.mark.parametrize("size", [1, 5 * 2**30])
def test_archive_is_readable_with_and_without_the_zip64_format(size: int) -> None:
    archive = ZipStream(NOW)
    content = b"".join([*archive.add_pieces("证据/a.bin", [b"x" * 10], size), *archive.finish()])
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        assert opened.read("证据/a.bin") == b"x" * 10


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "C:/a", "a\\b", "a/../b", "", "a\nb"])
def test_archive_refuses_unsafe_and_repeated_names(name: str) -> None:
    archive = ZipStream(NOW)
    list(archive.add("b", b""))
    for refused in (name, "b"):
        with pytest.raises(ValueError, match="cannot be the name"):
            list(archive.add(refused, b""))


def test_pack_takes_missing_signature_from_the_state_database(
    evidence: Evidence, maker: PackMaker
) -> None:
    """Between the ledger row and the upload, the signature is in the state database."""
    folders = maker.quarter()
    signature = maker.evidence.root / folders[2] / "SHA256SUMS.sig"
    content = signature.read_bytes()
    signature.unlink()
    pack = maker.pack(pending=lambda bundle: content if bundle == folders[2] else None)
    folder = maker.unpacked(pack)
    assert pack.not_verified == []
    assert (folder / "bundles" / folders[2] / "SHA256SUMS.sig").read_bytes() == content


def test_pack_of_bundles_in_s3_contains_every_file(maker: PackMaker, moto: MotoServer) -> None:
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket, "evidence")
    maker.evidence.store = store
    folders = maker.quarter()
    client.delete_object(Bucket=bucket, Key=f"evidence/{folders[2]}/report.en.html")
    pack = maker.pack()
    folder = maker.unpacked(pack)
    assert pack.not_verified == [folders[2]]
    for name in folders[:2]:
        for stored in store.list(f"{name}/"):
            assert (folder / "bundles" / stored.key).read_bytes() == store.get(stored.key)


def test_pack_of_a_bucket_that_disappears_leaves_no_file(
    maker: PackMaker, moto: MotoServer
) -> None:
    maker.quarter()
    store = S3Store(client_for(moto.endpoint), "no-such-bucket", "evidence")
    with pytest.raises(StoreError):
        maker.write(maker.pack(store=store))
    assert list(maker.folder.iterdir()) == []
