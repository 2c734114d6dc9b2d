"""The command ``sampling verify`` repeats the draw of an audit bundle and checks its seal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from include.cli import app, evidence
from include.composition import build_services
from include.local.postgres import EmbeddedPostgres
from include.services.connections import ConnectionSpec
from tests.retention.chinook_services import spec
from tests.sampling.company import SEED, SIGNER, Company, by_branch, new_company, population


@pytest.fixture(scope="module")
def audited(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Company, Path]]:
    """Yield a company and the evidence bundle of its audit sample."""
    with new_company(postgres, migrated_once, tmp_path_factory.mktemp("audited")) as company:
        company.use_populations(population(), by_branch())
        yield company, company.root / company.run().path


@pytest.fixture
def bundle(audited: tuple[Company, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the evidence store, let the commands use the copy, and return its audit bundle."""
    company, path = audited
    store = Path(shutil.copytree(company.root, tmp_path / "store"))
    key = SIGNER.public_pem.decode()
    specs = {
        "customer_db": spec("customer_db", company.source),
        "state_db": spec("state_db", company.state),
        "evidence_store": ConnectionSpec(
            conn_id="evidence_store",
            conn_type="fs",
            extra={"path": str(store), "trusted_keys": [key]},
        ),
    }
    services = build_services(tmp_path / "home", company.folder, specs.get)
    monkeypatch.setattr(evidence, "command_services", lambda: services)
    monkeypatch.setattr(evidence, "local_stack", nullcontext)
    return store / path.relative_to(company.root)


def run_verify(
    capsys: pytest.CaptureFixture[str], folder: Path | str
) -> tuple[int, dict[str, Any], str]:
    """Run ``sampling verify`` for a folder. Return the exit code, JSON object and stderr."""
    code = app._run(["sampling", "verify", str(folder), "--json"])
    output = capsys.readouterr()
    assert output.out.count("\n") == 1
    return code, json.loads(output.out), output.err


def test_sampling_verify_accepts_an_unchanged_bundle(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle is in the evidence store and has a row in the evidence ledger."""
    code, result, err = run_verify(capsys, bundle)
    assert (code, result["verified"], result["reason"], err) == (0, True, None, "")
    assert (result["audit"], result["seed"]) == ("2026Q3", SEED)
    assert [
        (population["population"], population["items"], population["verified"])
        for population in result["populations"]
    ] == [
        ("openings", 200, True),
        ("branches", 200, True),
    ]
    assert all(
        population["drawn"] > 0 and population["rejected"] >= 0
        for population in result["populations"]
    )


def test_sampling_verify_accepts_a_copy_of_the_bundle_outside_the_evidence_store(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An external auditor has such a copy. Its path may be relative or end with a slash."""
    copy = shutil.copytree(bundle, tmp_path / "handed over")
    assert run_verify(capsys, copy)[:1] == (0,)
    assert run_verify(capsys, f"{copy}/")[1]["verified"] is True


def test_sampling_verify_without_json_option_prints_a_table_and_the_result(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has one line for each population."""
    assert app._run(["sampling", "verify", str(bundle)]) == 0
    output = capsys.readouterr().out
    assert f"audit 2026Q3, seed {SEED}" in output
    assert "verified: the seal is valid, and the same items are drawn again" in output
    (line,) = [line for line in output.splitlines() if line.lstrip().startswith("openings")]
    assert line.split()[1] == "200"
    assert line.rstrip().endswith("the same")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("frames/openings.tsv", "openings: the frame differs from the committed frame"),
        ("samples/branches.json", "branches: the draw cannot be repeated"),
        ("workpapers.xlsx", "workpapers.xlsx"),
    ],
)
def test_sampling_verify_rejects_an_edited_bundle(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    reason: str,
    inside: bool,
) -> None:
    """The reason names the changed file, or the population whose repeated draw has other items."""
    folder = bundle if inside else shutil.copytree(bundle, tmp_path / "copy")
    path = folder / name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-3])
    code, result, _err = run_verify(capsys, folder)
    assert (code, result["verified"]) == (1, False)
    assert reason in result["reason"]
    rejected = {
        population["population"]
        for population in result["populations"]
        if not population["verified"]
    }
    assert rejected == ({reason.partition(":")[0]} if ":" in reason else set())
    assert app._run(["sampling", "verify", str(folder)]) == 1
    told_people = capsys.readouterr()
    assert "not verified" in told_people.err
    assert "the seal is valid" not in told_people.out


def test_sampling_verify_rejects_a_sealed_bundle_with_an_item_that_was_not_drawn(
    audited: tuple[Company, Path], bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle has a valid seal, but lists an item that the seed does not draw."""
    company, _path = audited
    files = {
        path.relative_to(bundle).as_posix(): path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file() and path.parent.name in ("frames", "samples", bundle.name)
    }
    for name in ("SHA256SUMS", "SHA256SUMS.sig", "signer.pem", "result.json"):
        del files[name]
    sample = files["samples/openings.json"]
    files["samples/openings.json"] = sample.replace(b'"key": "', b'"key": "1', 1)
    sealed = company.seal_files("forged", files)
    code, result, _err = run_verify(capsys, company.root / sealed.path)
    assert code == 1
    assert result["reason"] == "openings: the repeated draw has other items than the bundle"


@pytest.mark.parametrize("folder_exists", [True, False])
def test_sampling_verify_of_folder_without_bundle_exits_with_2(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder_exists: bool
) -> None:
    """The folder is missing, or it contains no bundle."""
    folder = tmp_path / "nothing here"
    if folder_exists:
        folder.mkdir()
    for path in (folder, bundle.parent / "nothing here"):
        if folder_exists:
            path.mkdir(exist_ok=True)
        code, result, err = run_verify(capsys, path)
        assert (code, list(result)) == (2, ["error"])
        assert (
            "nothing here" in result["error"]
            or "not a bundle of a drawn audit sample" in result["error"]
        )
        assert err.strip()


def test_sampling_verify_of_a_commitment_bundle_exits_with_2(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle with the commitment has no random seed and no draw."""
    store = next(parent for parent in bundle.parents if parent.name == "store")
    (commitment,) = (path.parent for path in (store / "sample_commitment").rglob("commitment.json"))
    code, result, _err = run_verify(capsys, commitment)
    assert code == 2
    assert "seed.json is missing" in result["error"]


def test_sampling_verify_escapes_markup_and_control_characters(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle of another origin may contain any text, and must not control the terminal."""
    folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
    path = folder / "commitment.json"
    path.write_text(path.read_text().replace('"openings"', '"[/red]x\\u001b[2J"'))
    seed = folder / "seed.json"
    seed.write_text(seed.read_text().replace(SEED, "[bold]1\\u001b[2J"))
    assert app._run(["sampling", "verify", str(folder)]) == 1
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err
    assert "[/red]x" in output.err
    assert "[bold]1" in output.out


@pytest.mark.parametrize("words", [["verify"], ["sampling", "verify"]])
def test_sampling_verify_escapes_markup_in_file_names(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """A file name must not change or hide the output of the command."""
    folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (folder / "[").mkdir()
    (folder / "[" / "red]x\x1b[2J").write_text("x")
    assert app._run([*words, str(folder)]) == 1
    output = capsys.readouterr()
    assert "not verified" in output.err
    assert "[/red]x" in output.err
    assert "\x1b" not in output.out + output.err
