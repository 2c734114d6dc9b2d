"""The page verify.html of an inspection pack in Chromium, from ``file://`` without a network."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from include.evidence.model import Outcome, failure_finding
from include.evidence.signing import Signer, generate_key
from include.inspection.verifier import render_verifier
from include.messages import verbatim
from include.services.clock import FixedClock
from tests.evidence.conftest import open_evidence
from tests.inspection.inspector import (
    Inspector,
    bundle,
    changed_manifest,
    cut_row,
    name_of,
    renewed_list,
)
from tests.inspection.support import CLAUSE, OTHER_WORKFLOW, POLICY, QUARTER, WORKFLOW, PackMaker
from tests.reports.test_browser import CHROMIUM

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("lang", ["en", "zh-CN"])
def test_page_accepts_an_unchanged_pack_in_both_languages(
    inspector: Inspector, folder: Path, form: str, lang: str
) -> None:
    pack = folder if form == "folder" else folder.parent / "pack.zip"
    check = inspector.check(pack, verifier=folder / "verify.html", lang=lang)
    assert (check.verdict, check.problems) == ("good", {}), check.text
    fingerprint = next((folder / "keys").iterdir()).stem
    assert fingerprint in check.text.replace(" ", "")
    assert ("bundles: 3;" if lang == "en" else "3 份证据包") in check.text
    assert ("ledger: 8;" if lang == "en" else "8 条") in check.text


def changed_byte(folder: Path) -> str:
    file = bundle(folder) / "plans" / "plan one.csv"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    return name_of(file, folder)


def missing_file(folder: Path) -> str:
    file = bundle(folder) / "report.en.html"
    file.unlink()
    return name_of(file, folder)


def added_file(folder: Path) -> str:
    file = bundle(folder) / "added.txt"
    file.write_text("x")
    return name_of(file, folder)


def swapped_bundle(folder: Path) -> str:
    first, second = bundle(folder, 7), bundle(folder, 8)
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    return name_of(second / "SHA256SUMS", folder)


def wrong_key(folder: Path) -> str:
    key = next((folder / "keys").iterdir())
    key.write_bytes(Signer.from_pem(generate_key()).public_pem)
    return name_of(key, folder)


TAMPERINGS: dict[Callable[[Path], str], str] = {
    changed_byte: "The file was changed.",
    missing_file: "The file is missing.",
    added_file: "The file was added",
    swapped_bundle: "The folder contains another bundle, that of bundles/enforce_retention/2026/07",
    wrong_key: "The file contains another key than its name says.",
}


@pytest.mark.parametrize("forged_list", [False, True], ids=["old list", "new list"])
@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_page_names_the_file_of_each_tampering(
    inspector: Inspector,
    folder: Path,
    tamper: Callable[[Path], str],
    form: str,
    forged_list: bool,
) -> None:
    """The result does not depend on pack.sha256, which a forger can write again."""
    file = tamper(folder)
    if forged_list:
        renewed_list(folder)
    pack = folder
    if form == "archive":
        pack = Path(shutil.make_archive(str(folder.parent / "forged"), "zip", folder))
    check = inspector.check(pack, verifier=folder / "verify.html")
    assert check.verdict == "bad"
    assert any(problem.startswith(TAMPERINGS[tamper]) for problem in check.problems[file])
    others = {name for name in check.problems if name != file}
    if tamper in (changed_byte, missing_file, added_file):
        assert others == set()


def test_page_accepts_only_signatures_of_the_entered_fingerprints(
    inspector: Inspector, folder: Path
) -> None:
    own = next((folder / "keys").iterdir()).stem
    typed = f"SHA256: {own[:32].upper()} {own[32:]}"
    for expected in (typed, f"{'cd' * 32}\n{typed}", f"{own} {'cd' * 32}"):
        assert inspector.check(folder, expected=expected).verdict == "good"
    other = inspector.check(folder, expected="ab" * 32)
    assert other.verdict == "bad"
    lists = {name_of(file, folder) for file in folder.rglob("SHA256SUMS")}
    assert set(other.problems) == {f"keys/{own}.pem", "chain/ledger.txt"} | lists
    wrong = inspector.check(folder, expected=own[:-1])
    assert wrong.problems["keys/"][0].startswith("The text that you entered is not a fingerprint.")


@pytest.mark.parametrize("lang", ["en", "zh-CN"])
def test_page_is_amber_and_asks_to_compare_the_key_if_no_fingerprint_was_entered(
    inspector: Inspector, folder: Path, lang: str
) -> None:
    check = inspector.check(folder, expected="", lang=lang)
    assert (check.verdict, check.problems) == ("care", {})
    words = {"en": "you still have to compare the fingerprint", "zh-CN": "指纹"}
    assert words[lang] in check.text


@pytest.fixture
def foreign(
    migrated: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """Yield the folder of a pack that another key signed, and the fingerprint of this key."""
    other = Signer.from_pem(generate_key())
    with open_evidence(migrated, other, tmp_path_factory.mktemp("foreign")) as evidence:
        maker = PackMaker(evidence, tmp_path)
        maker.quarter()
        yield maker.unpacked(maker.pack()), other.fingerprint


def test_page_refuses_a_pack_of_a_foreign_key_to_which_the_key_of_the_company_was_added(
    inspector: Inspector, foreign: tuple[Path, str], signer: Signer
) -> None:
    """Everything in the pack is signed, and the entered key is in the pack, but it signed none."""
    folder, fingerprint = foreign
    (folder / "keys" / f"{signer.fingerprint}.pem").write_bytes(signer.public_pem)
    renewed_list(folder)
    check = inspector.check(folder, expected=signer.fingerprint)
    assert check.verdict == "bad"
    lists = {name_of(file, folder) for file in folder.rglob("SHA256SUMS")}
    assert set(check.problems) == {"chain/ledger.txt"} | lists
    rows = check.problems["chain/ledger.txt"]
    assert len(rows) == 8
    assert all(fingerprint in problem for problem in rows)
    without = inspector.check(folder, expected="")
    assert without.verdict == "care"
    assert "(signatures made with this key: 0)" in without.text
    with_both_keys = inspector.check(folder, expected=f"{signer.fingerprint} {fingerprint}")
    assert with_both_keys.verdict == "good"


@pytest.mark.parametrize(
    "values",
    [
        {"since": "2026-09-01T00:00:00+08:00"},
        {"until": "2026-08-01T00:00:00+08:00"},
        {"timezone": "America/New_York"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_page_refuses_a_period_that_differs_from_the_shown_days(
    inspector: Inspector, folder: Path, values: dict[str, str]
) -> None:
    for month in (7, 8):
        shutil.rmtree(bundle(folder, month))
    changed_manifest(folder, **values)
    check = inspector.check(folder)
    assert check.verdict == "bad"
    assert check.problems["manifest.json"] == [
        "The moments since and until are not the beginning and the end of the stated days."
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"first_day": None},
        {"timezone": "Nowhere/Town"},
        {"controls": []},
        {"clauses": []},
        {"ledger_rows_left_out": -1},
        {"control_details": [{}]},
    ],
    ids=lambda values: next(iter(values)),
)
def test_page_refuses_a_manifest_without_period_controls_or_clauses(
    inspector: Inspector, folder: Path, values: dict[str, object]
) -> None:
    changed_manifest(folder, **values)
    assert inspector.check(folder).problems["manifest.json"] == [
        "The file does not have the format of a manifest."
    ]


def open_with_fingerprint(inspector: Inspector, folder: Path, fingerprint: str) -> Page:
    """Open the page, enter a fingerprint, choose the folder, and wait for the result."""
    page = inspector.open(folder / "verify.html")
    page.locator("#expected").fill(fingerprint)
    page.locator("#folder").set_input_files(folder)
    expect(page.locator("#result")).to_have_attribute("data-verdict", re.compile("."))
    return page


def wait_until(page: Page, condition: str) -> None:
    """Wait at most 10 seconds for a condition. The page forbids the code of `wait_for_function`."""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def test_page_has_the_field_for_the_fingerprint_before_the_buttons(
    inspector: Inspector, folder: Path
) -> None:
    page = inspector.open(folder / "verify.html")
    places = [page.locator(name).bounding_box() for name in ("#expected", "label[for=folder]")]
    assert places[0] is not None
    assert places[1] is not None
    assert places[0]["y"] < places[1]["y"]
    page.keyboard.press("Tab")  # the button of the language
    for name in ("expected", "folder", "archive"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == name
    page.context.close()


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_page_checks_the_same_files_again_if_the_fingerprint_changes(
    inspector: Inspector, folder: Path, form: str
) -> None:
    own = next((folder / "keys").iterdir()).stem
    page = inspector.open(folder / "verify.html")
    pack = folder if form == "folder" else folder.parent / "pack.zip"
    page.locator(f"#{form}").set_input_files(pack)
    result = page.locator("#result")
    for typed, verdict in ((own, "good"), ("ab" * 32, "bad"), ("", "care"), (own, "good")):
        page.locator("#expected").fill(typed)
        expect(result).to_have_attribute("data-verdict", verdict)
    page.context.close()


def test_page_removes_the_verdict_as_soon_as_the_fingerprint_changes(
    inspector: Inspector, folder: Path
) -> None:
    """An incomplete fingerprint is checked when the person leaves the field."""
    own = next((folder / "keys").iterdir()).stem
    page = open_with_fingerprint(inspector, folder, own)
    shown = page.evaluate(
        """() => {
            const field = document.getElementById("expected");
            field.value += "ab";
            field.dispatchEvent(new Event("input"));
            const result = document.getElementById("result");
            return [result.dataset.verdict || "", result.innerText];
        }"""
    )
    assert shown[0] == ""
    assert shown[1].startswith("The fingerprint was changed.")
    result = page.locator("#result")
    page.locator("#expected").focus()
    page.keyboard.press("End")
    page.keyboard.type("cd")
    expect(result).to_contain_text("The fingerprint was changed.")
    page.locator("#folder").focus()
    expect(result).to_have_attribute("data-verdict", "bad")
    expect(result).to_contain_text("The text that you entered is not a fingerprint.")
    page.context.close()


def test_page_drops_the_result_of_a_check_that_an_older_fingerprint_began(
    inspector: Inspector, folder: Path
) -> None:
    own = next((folder / "keys").iterdir()).stem
    page = inspector.open(folder / "verify.html")
    page.evaluate(
        """() => {
            const slow = Checker.prototype.checkList;
            Checker.prototype.checkList = async function () {
                await slow.call(this);
                if (!this.expected.size) await new Promise((done) => { window.finish = done; });
            };
        }"""
    )
    page.locator("#folder").set_input_files(folder)
    wait_until(page, "Boolean(window.finish)")
    page.locator("#expected").fill(own)
    result = page.locator("#result")
    expect(result).to_have_attribute("data-verdict", "good")
    page.evaluate("window.finish()")
    page.wait_for_timeout(300)
    expect(result).to_have_attribute("data-verdict", "good")
    page.context.close()


def test_page_checks_the_same_zip_file_again_if_it_is_chosen_again(
    inspector: Inspector, folder: Path
) -> None:
    own = next((folder / "keys").iterdir()).stem
    archive = folder.parent / "pack.zip"
    page = inspector.open(folder / "verify.html")
    page.locator("#expected").fill(own)
    page.evaluate(
        """() => {
            window.checks = 0;
            const check = Checker.prototype.check;
            Checker.prototype.check = function () {
                window.checks += 1;
                return check.call(this);
            };
        }"""
    )
    for count in (1, 2):
        page.locator("#archive").set_input_files(archive)
        wait_until(page, f"window.checks === {count}")
        expect(page.locator("#result")).to_have_attribute("data-verdict", "good")
        assert page.locator("#archive").input_value() == ""
    page.context.close()


def test_page_expects_bundles_of_controls_that_signed_results_assign_to_the_clause(
    inspector: Inspector, folder: Path
) -> None:
    """Although manifest.json no longer names the controls."""
    removed = bundle(folder)
    shutil.rmtree(removed)
    changed_manifest(folder, controls=["backup.other"], control_details=[], workflows=[])
    check = inspector.check(folder)
    assert list(check.problems) == [f"{name_of(removed, folder)}/"]


def test_page_names_controls_of_the_clauses_and_other_controls_of_the_signed_rows(
    inspector: Inspector, folder: Path
) -> None:
    """So the inspector can see a control that manifest.json no longer assigns to the clause."""
    text = inspector.check(folder).text
    own, other = POLICY.controls_of(WORKFLOW), POLICY.controls_of(OTHER_WORKFLOW)
    assert all(f"{control.id} ({control.title['en']})" in text for control in own)
    assert "2026-07-01 to 2026-09-30, timezone Asia/Shanghai." in text
    assert "according to manifest.json: 3. Controls in their signed rows: 2." in text
    assert all(control.id in text for control in other)


def test_page_folds_the_controls_of_other_clauses(inspector: Inspector, folder: Path) -> None:
    """They are shown at once only if they may belong to a clause without a signed result."""
    own = next((folder / "keys").iterdir()).stem
    page = open_with_fingerprint(inspector, folder, own)
    fold = page.locator("details")
    expect(fold.locator("summary")).to_contain_text("Controls in their signed rows: 2.")
    control = POLICY.controls_of(OTHER_WORKFLOW)[0].id
    expect(fold.get_by_text(control)).to_be_hidden()
    fold.locator("summary").click()
    expect(fold.get_by_text(control)).to_be_visible()
    page.context.close()
    shutil.rmtree(folder / "bundles")
    changed_manifest(folder, bundles=[], controls=["other.control"], workflows=[])
    page = open_with_fingerprint(inspector, folder, own)
    expect(page.locator("details").get_by_text(control)).to_be_visible()
    page.context.close()


def test_page_is_amber_if_no_signed_result_shows_the_controls_of_a_clause(
    inspector: Inspector, folder: Path
) -> None:
    """A forger can name another control, and remove all bundles of the clause."""
    shutil.rmtree(folder / "bundles")
    changed_manifest(folder, bundles=[], controls=["other.control"], workflows=[])
    check = inspector.check(folder)
    assert (check.verdict, check.problems) == ("care", {})
    assert "the pack has no signed result for the clauses 5.3" in check.text
    assert all(control.id in check.text for control in POLICY.controls_of(WORKFLOW))


@pytest.mark.parametrize("kept", [0, 1], ids=["no row", "only the last row"])
def test_page_refuses_a_pack_without_the_rows_that_show_an_empty_period(
    inspector: Inspector, folder: Path, kept: int
) -> None:
    shutil.rmtree(folder / "bundles")
    file = folder / "chain" / "ledger.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[len(lines) - kept :]))
    changed_manifest(folder, bundles=[], ledger_first=8 if kept else None)
    check = inspector.check(folder)
    words = {
        0: "The pack has no row of the evidence ledger, so it proves nothing.",
        1: "The rows of the evidence ledger before number 8 are missing.",
    }
    assert check.verdict == "bad"
    assert words[kept] in check.problems["chain/ledger.txt"]


def test_page_is_amber_if_no_row_after_the_period_shows_its_end(
    inspector: Inspector, folder: Path
) -> None:
    """A forger can cut off the last rows and their bundles."""
    file = folder / "chain" / "ledger.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:6]))
    shutil.rmtree(bundle(folder, 9))
    changed_manifest(folder, ledger_last=6)
    check = inspector.check(folder)
    assert (check.verdict, check.problems) == ("care", {})
    assert "no signed row after the period" in check.text
    assert "number 6, sealed at 2026-09-03 18:02:00 (Asia/Shanghai)." in check.text


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ([], "Rows of the evidence ledger are left out (1), but no workflow is named"),
        ([WORKFLOW], "belongs to a workflow whose rows are said to be left out."),
        (["elsewhere"], ""),
    ],
)
def test_page_does_not_believe_that_a_removed_row_was_left_out(
    inspector: Inspector, folder: Path, named: list[str], words: str
) -> None:
    shutil.rmtree(bundle(folder))
    cut_row(folder, 5)
    workflows = [{"name": name, "title": {"en": name, "zh-CN": name}} for name in named]
    changed_manifest(folder, ledger_rows_left_out=1, ledger_workflows_left_out=workflows)
    check = inspector.check(folder)
    if words:
        assert check.verdict == "bad"
        assert any(words in problem for problem in check.problems["chain/ledger.txt"])
    else:
        assert (check.verdict, check.problems) == ("care", {})
        assert "The pack does not prove this" in check.text


def test_page_compares_the_number_of_left_out_rows_and_the_signed_links(
    inspector: Inspector, folder: Path
) -> None:
    """The list of the bundle after the gap names the workflow of the bundle before it."""
    cut_row(folder, 4)
    elsewhere = [{"name": "elsewhere", "title": {"en": "Elsewhere", "zh-CN": "Elsewhere"}}]
    for count in (1, 2):
        changed_manifest(folder, ledger_rows_left_out=count, ledger_workflows_left_out=elsewhere)
        check = inspector.check(folder)
        linked = check.problems[f"{name_of(bundle(folder), folder)}/SHA256SUMS"]
        assert linked[0].startswith(f"The bundle before it in the chain, {OTHER_WORKFLOW}/2026/08")
        differs = "Rows that are missing: 1. According to manifest.json, 2 rows are left out."
        assert (differs in check.problems.get("chain/ledger.txt", [])) == (count == 2)


def test_page_accepts_removed_controls_and_bundles_without_controls_and_expects_them(
    inspector: Inspector, maker: PackMaker
) -> None:
    maker.quarter()
    maker.seal(date(2026, 9, 20), OTHER_WORKFLOW, outcome=Outcome.FAIL, controls=())
    maker.seal(date(2026, 9, 21), "drill_restore", outcome=Outcome.FAIL)
    maker.seal(date(2026, 10, 6))
    kept = tuple(control for control in POLICY.controls if control.workflow != "drill_restore")
    policy = POLICY.model_copy(update={"controls": kept})
    folder = maker.unpacked(maker.pack("4.2", policy=policy))
    check = inspector.check(folder)
    assert (check.verdict, check.problems) == ("good", {}), check.text
    for workflow in (OTHER_WORKFLOW, "drill_restore"):
        shutil.rmtree(folder / "bundles" / workflow / "2026" / "09")
    renewed_list(folder)
    assert len(inspector.check(folder).problems) == 3


def test_page_names_a_bundle_that_was_removed_with_its_lines(
    inspector: Inspector, folder: Path
) -> None:
    """The signed rows of the ledger list the bundle."""
    removed = bundle(folder)
    shutil.rmtree(removed)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["bundles"] = [
        entry for entry in manifest["bundles"] if entry["folder"] != name_of(removed, folder)
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    renewed_list(folder)
    check = inspector.check(folder)
    assert check.verdict == "bad"
    assert check.problems == {
        f"{name_of(removed, folder)}/": [
            "The bundle is missing. The signed evidence ledger lists it."
        ]
    }


@pytest.mark.parametrize("harm", ["removed", "changed", "first removed"])
def test_page_detects_changed_and_removed_rows_of_the_evidence_ledger(
    inspector: Inspector, folder: Path, harm: str
) -> None:
    file = folder / "chain" / "ledger.txt"
    lines = file.read_text().splitlines(keepends=True)
    if harm == "removed":
        del lines[3]
    elif harm == "first removed":
        del lines[0]
    else:
        lines[3] = lines[3].replace('"outcome":"pass"', '"outcome":"fail"')
    file.write_text("".join(lines))
    renewed_list(folder)
    check = inspector.check(folder)
    assert check.verdict == "bad"
    words = {
        "removed": "Rows 4 to 4 of the evidence ledger are missing.",
        "first removed": "The rows of the evidence ledger before number 2 are missing.",
        "changed": "Row 4 of the evidence ledger",
    }
    assert any(text.startswith(words[harm]) for text in check.problems["chain/ledger.txt"])


def test_page_reports_gaps_of_the_chain_if_workflows_were_left_out(
    inspector: Inspector, maker: PackMaker
) -> None:
    maker.quarter()
    folder = maker.unpacked(maker.pack(may_read=lambda name: name != OTHER_WORKFLOW))
    check = inspector.check(folder)
    assert (check.verdict, check.problems) == ("care", {})
    assert "Rows of the evidence ledger that are not in the pack: 3." in check.text
    assert "does not contain the complete chain" in check.text


def test_page_is_amber_if_the_pack_contains_no_bundle(
    inspector: Inspector, maker: PackMaker
) -> None:
    maker.quarter()
    year = date(2025, 1, 1), date(2025, 12, 31)
    check = inspector.check(maker.unpacked(maker.pack(period=year)))
    assert (check.verdict, check.problems) == ("care", {})
    assert check.text.startswith("This pack contains no evidence of the period.")
    assert "The pack contains no bundle." in check.text


def test_page_is_amber_if_all_bundles_of_the_period_were_removed(
    inspector: Inspector, maker: PackMaker
) -> None:
    maker.quarter()
    maker.evidence.prune(before_seq=8, clock=FixedClock(datetime(2026, 10, 6, tzinfo=UTC)))
    check = inspector.check(maker.unpacked(maker.pack()))
    assert (check.verdict, check.problems) == ("care", {})
    assert check.text.startswith("This pack contains no evidence of the period.")
    assert "removed at the end of their retention period: 3." in check.text


def test_page_is_amber_if_the_only_bundle_is_not_of_the_period(
    inspector: Inspector, maker: PackMaker
) -> None:
    """The bundle and its row are genuine, but it is not evidence of the period."""
    maker.seal(date(2026, 6, 20))
    maker.seal(date(2026, 10, 5))
    summer = maker.unpacked(maker.pack(period=(date(2026, 6, 1), date(2026, 6, 30))))
    shutil.rmtree(maker.folder / "moved", ignore_errors=True)
    moved = summer.rename(maker.folder / "moved")
    folder = maker.unpacked(maker.pack())
    shutil.copytree(moved / "bundles", folder / "bundles")
    renewed_list(folder)
    check = inspector.check(folder)
    assert (check.verdict, check.problems) == ("care", {})
    assert check.text.startswith("This pack contains no evidence of the period.")


def test_page_names_the_bundle_that_did_not_verify_when_the_pack_was_created(
    inspector: Inspector, maker: PackMaker
) -> None:
    folders = maker.quarter()
    (maker.evidence.root / folders[1] / "report.en.html").write_bytes(b"<p>better</p>")
    check = inspector.check(maker.unpacked(maker.pack()))
    assert check.verdict == "bad"
    assert check.problems == {f"bundles/{folders[1]}/report.en.html": ["The file was changed."]}
    assert "according to manifest.json: 1." in check.text


def test_page_shows_removed_bundles_of_a_pruned_period(
    inspector: Inspector, maker: PackMaker
) -> None:
    maker.quarter()
    maker.evidence.prune(before_seq=5, clock=FixedClock(datetime(2026, 10, 6, tzinfo=UTC)))
    check = inspector.check(maker.unpacked(maker.pack()))
    assert (check.verdict, check.problems) == ("good", {}), check.text
    assert "removed at the end of their retention period: 1." in check.text


def test_page_checks_bundles_that_are_in_the_pack_because_of_their_findings(
    inspector: Inspector, maker: PackMaker
) -> None:
    """The page does not know how many there are, because signed rows name no findings."""
    maker.quarter()
    late = failure_finding(
        code="quality.late",
        subject="orders",
        message=verbatim("late"),
        action=verbatim("Correct it."),
        clause=CLAUSE,
    )
    day = date(2026, 8, 21)
    sealed = maker.seal(day, "check_quality", outcome=Outcome.FAIL, findings=[late])
    maker.seal(date(2026, 10, 6))
    maker.follow()
    folder = maker.unpacked(maker.pack())
    check = inspector.check(folder)
    assert (check.verdict, check.problems) == ("good", {}), check.text
    assert "in the pack that are not for these clauses: 1." in check.text
    report = folder / "bundles" / sealed.path / "report.en.html"
    report.write_bytes(b"<p>better</p>")
    renewed_list(folder)
    assert inspector.check(folder).problems == {name_of(report, folder): ["The file was changed."]}


def test_page_is_amber_if_the_pack_has_only_bundles_of_other_clauses(
    inspector: Inspector, maker: PackMaker
) -> None:
    """Bundles that are in the pack for their findings do not replace those of the clauses."""
    maker.quarter()
    backups = maker.unpacked(maker.pack("4.2"))
    manifest = json.loads((backups / "manifest.json").read_text())
    changed_manifest(
        backups, clauses=[CLAUSE], controls=["other.control"], control_details=[], workflows=[]
    )
    assert manifest["bundles"]
    check = inspector.check(backups)
    assert (check.verdict, check.problems) == ("care", {})
    assert "no signed result for the clauses 5.3" in check.text


def test_hashes_of_the_page_equal_those_of_the_browser_for_every_length(
    browser: Browser, tmp_path: Path
) -> None:
    """The page hashes large files with its own code; here, small pieces of many sizes."""
    (tmp_path / "verify.html").write_bytes(render_verifier())
    page = Inspector(browser).open(tmp_path / "verify.html")
    differences = page.evaluate(
        """async () => {
            const wrong = [];
            for (let length = 0; length <= 300; length++) {
                const bytes = crypto.getRandomValues(new Uint8Array(length));
                const hash = new Sha256();
                for (let at = 0, step = 1; at < length; at += step, step = (step * 7) % 97 + 1) {
                    hash.update(bytes.subarray(at, at + step));
                }
                if (hash.digest() !== await webDigest(bytes)) wrong.push(length);
            }
            return wrong;
        }"""
    )
    assert differences == []
    million = page.evaluate(
        """() => {
            const hash = new Sha256();
            for (let n = 0; n < 10000; n++) hash.update(new Uint8Array(100).fill(97));
            return hash.digest();
        }"""
    )
    assert million == hashlib.sha256(b"a" * 1_000_000).hexdigest()
    page.context.close()


def test_page_explains_why_nothing_was_checked_if_the_browser_has_no_ed25519(
    browser: Browser, folder: Path
) -> None:
    page = Inspector(browser).open(folder / "verify.html")
    page.evaluate(
        "() => { crypto.subtle.importKey = async () => { throw new Error('unsupported'); }; }"
    )
    page.locator("#folder").set_input_files(folder)
    expect(page.locator("#result")).to_contain_text("cannot check Ed25519 signatures")
    assert page.locator("#result").get_attribute("data-verdict") is None
    page.context.close()


def test_page_refuses_a_folder_that_is_not_a_pack(
    inspector: Inspector, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("x")
    check = inspector.check(other, verifier=folder / "verify.html")
    assert check.verdict == ""
    assert "this is not an inspection pack" in check.text


def test_page_reports_entries_of_a_zip_file_with_unsafe_names_or_twice(
    inspector: Inspector, folder: Path
) -> None:
    archive = folder.parent / "pack.zip"
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr("../outside.txt", "x")
        with pytest.warns(UserWarning, match="Duplicate name"):
            target.writestr("manifest.json", "{}")
    check = inspector.check(archive, verifier=folder / "verify.html")
    assert check.verdict == "bad"
    assert set(check.problems) == {"../outside.txt", "manifest.json"}


def test_page_cannot_reach_the_network(browser: Browser, folder: Path) -> None:
    page = Inspector(browser).open(folder / "verify.html")
    page.context.set_offline(False)
    assert page.evaluate(
        "fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => String(error))"
    ).startswith("TypeError")
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    page.context.close()


def test_large_files_of_a_pack_are_hashed_in_pieces(inspector: Inspector, maker: PackMaker) -> None:
    maker.seal(QUARTER[0], files={"big.bin": bytes(70 * 1024 * 1024)})
    maker.seal(date(2026, 10, 5))
    folder = maker.unpacked(maker.pack())
    assert inspector.check(folder).verdict == "good"
    file = next(folder.rglob("big.bin"))
    with file.open("r+b") as stream:
        stream.seek(69 * 1024 * 1024)
        stream.write(b"x")
    check = inspector.check(folder)
    assert check.problems == {name_of(file, folder): ["The file was changed."]}
