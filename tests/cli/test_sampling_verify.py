"""``sampling verify``: a bundle of an audit, drawn again and its seal checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from include.cli import app, evidence
from include.composition import new_workplace
from include.local.postgres import EmbeddedPostgres
from include.services.connections import ConnectionSpec
from tests.retention.place import spec
from tests.sampling.rig import SEED, SIGNER, Rig, by_branch, new_rig, population


@pytest.fixture(scope="module")
def audited(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, Path]]:
    """A shop and the bundle of its audit."""
    with new_rig(postgres, migrated_once, tmp_path_factory.mktemp("audited")) as rig:
        rig.audit(population(), by_branch())
        yield rig, rig.root / rig.run().path


@pytest.fixture
def bundle(audited: tuple[Rig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle at a workplace whose evidence store it lies in."""
    rig, path = audited
    store = Path(shutil.copytree(rig.root, tmp_path / "store"))
    key = SIGNER.public_pem.decode()
    specs = {
        "customer_db": spec("customer_db", rig.source),
        "state_db": spec("state_db", rig.state),
        "evidence_store": ConnectionSpec(
            conn_id="evidence_store",
            conn_type="fs",
            extra={"path": str(store), "trusted_keys": [key]},
        ),
    }
    place = new_workplace(tmp_path / "home", rig.folder, specs.get)
    monkeypatch.setattr(evidence, "workplace", lambda: place)
    monkeypatch.setattr(evidence, "local_stack", nullcontext)
    return store / path.relative_to(rig.root)


def verified(
    capsys: pytest.CaptureFixture[str], folder: Path | str
) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object on stdout, and what people read."""
    code = app._run(["sampling", "verify", str(folder), "--json"])
    told = capsys.readouterr()
    assert told.out.count("\n") == 1
    return code, json.loads(told.out), told.err


def test_a_bundle_that_nobody_touched_is_verified(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the store, with its row of the ledger."""
    code, told, said = verified(capsys, bundle)
    assert (code, told["verified"], told["reason"], said) == (0, True, None, "")
    assert (told["audit"], told["seed"]) == ("2026Q3", SEED)
    assert [(one["population"], one["items"], one["verified"]) for one in told["populations"]] == [
        ("openings", 200, True),
        ("branches", 200, True),
    ]
    assert all(one["drawn"] > 0 and one["rejected"] >= 0 for one in told["populations"])


def test_a_copy_on_a_disk_is_verified_by_itself(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an outside auditor has it; also by a relative path with a slash at its end."""
    copy = shutil.copytree(bundle, tmp_path / "handed over")
    assert verified(capsys, copy)[:1] == (0,)
    assert verified(capsys, f"{copy}/")[1]["verified"] is True


def test_people_read_a_table_and_a_sentence(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each population."""
    assert app._run(["sampling", "verify", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert f"audit 2026Q3, seed {SEED}" in said
    assert "verified: the seal holds, and the same items are drawn again" in said
    (line,) = [one for one in said.splitlines() if one.lstrip().startswith("openings")]
    assert line.split()[1] == "200"
    assert line.rstrip().endswith("the same")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("frames/openings.tsv", "openings: the frame is not the one that was committed to"),
        ("samples/branches.json", "branches: it cannot be drawn again"),
        ("workpapers.xlsx", "workpapers.xlsx"),
    ],
)
def test_an_edited_bundle_is_not_verified(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    reason: str,
    inside: bool,
) -> None:
    """What is not as it was sealed is named, and where other items are drawn, that too."""
    folder = bundle if inside else shutil.copytree(bundle, tmp_path / "copy")
    path = folder / name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-3])
    code, told, _said = verified(capsys, folder)
    assert (code, told["verified"]) == (1, False)
    assert reason in told["reason"]
    harmed = {one["population"] for one in told["populations"] if not one["verified"]}
    assert harmed == ({reason.partition(":")[0]} if ":" in reason else set())
    assert app._run(["sampling", "verify", str(folder)]) == 1
    told_people = capsys.readouterr()
    assert "not verified" in told_people.err
    assert "the seal holds" not in told_people.out


def test_a_draw_that_was_sealed_wrong_is_not_verified(
    audited: tuple[Rig, Path], bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The seal alone proves no draw: this bundle is sealed as well as any."""
    rig, _path = audited
    files = {
        one.relative_to(bundle).as_posix(): one.read_bytes()
        for one in bundle.rglob("*")
        if one.is_file() and one.parent.name in ("frames", "samples", bundle.name)
    }
    for name in ("SHA256SUMS", "SHA256SUMS.sig", "signer.pem", "result.json"):
        del files[name]
    sample = files["samples/openings.json"]
    files["samples/openings.json"] = sample.replace(b'"key": "', b'"key": "1', 1)
    sealed = rig.sealed("forged", files)
    code, told, _said = verified(capsys, rig.root / sealed.path)
    assert code == 1
    assert told["reason"] == "openings: other items are drawn than the bundle names"


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_is_no_bundle_is_wrong_usage(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], made: bool
) -> None:
    """Or is not there: exit code 2 and one line."""
    folder = tmp_path / "nothing here"
    if made:
        folder.mkdir()
    for one in (folder, bundle.parent / "nothing here"):
        if made:
            one.mkdir(exist_ok=True)
        code, told, said = verified(capsys, one)
        assert (code, list(told)) == (2, ["error"])
        assert (
            "nothing here" in told["error"] or "no bundle of a drawn audit sample" in told["error"]
        )
        assert said.strip()


def test_a_bundle_of_another_workflow_is_wrong_usage(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commitment's own bundle has no seed: nothing was drawn in it."""
    store = next(one for one in bundle.parents if one.name == "store")
    (commitment,) = (one.parent for one in (store / "sample_commitment").rglob("commitment.json"))
    code, told, _said = verified(capsys, commitment)
    assert code == 2
    assert "There is no seed.json" in told["error"]


def test_markup_and_controls_in_a_bundle_are_shown_as_they_are(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle from elsewhere may hold anything; it cannot write over the terminal."""
    folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
    path = folder / "commitment.json"
    path.write_text(path.read_text().replace('"openings"', '"[/red]x\\u001b[2J"'))
    seed = folder / "seed.json"
    seed.write_text(seed.read_text().replace(SEED, "[bold]1\\u001b[2J"))
    assert app._run(["sampling", "verify", str(folder)]) == 1
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "[/red]x" in told.err
    assert "[bold]1" in told.out


@pytest.mark.parametrize("words", [["verify"], ["sampling", "verify"]])
def test_names_of_files_are_no_markup(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Whoever adds a file cannot choose what is printed of it, or that nothing is."""
    folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (folder / "[").mkdir()
    (folder / "[" / "red]x\x1b[2J").write_text("x")
    assert app._run([*words, str(folder)]) == 1
    told = capsys.readouterr()
    assert "not verified" in told.err
    assert "[/red]x" in told.err
    assert "\x1b" not in told.out + told.err
