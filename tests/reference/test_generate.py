"""Tests that the generated pages of docs/reference agree with the code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from pydantic import Field

from include.cli import config
from include.policy.rules import EvidenceRules
from include.reference import connection_pages, generate, pack_files, pack_pages
from include.reference.pack_files import PackFile
from include.reference.pack_pages import keys_of
from include.service_container import ROOT
from include.services.declared_connections import DeclaredConnection


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all generated pages."""
    root = tmp_path_factory.mktemp("pages")
    generate.write(root)
    return root


def check(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that a failing check prints."""
    assert generate.main(["--check"], root) == 1
    return capsys.readouterr().err.splitlines()


def test_generated_reference_pages_in_the_repository_are_up_to_date() -> None:
    assert generate.problems(ROOT) == []


def test_check_of_reference_passes_after_the_pages_were_written(written: Path) -> None:
    assert generate.main(["--check"], written) == 0


def test_check_prints_outdated_page_and_update_command_after_policy_pack_key_was_added(
    written: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Longer(EvidenceRules):
        """How long evidence bundles are kept and locked.

        Attributes:
            grace: Time before pruning starts.
        """

        grace: Annotated[int, Field(ge=0)] = 3

    files = [
        PackFile("evidence.yaml", Longer) if each.name == "evidence.yaml" else each
        for each in pack_files.pack_files()
    ]
    monkeypatch.setattr(pack_pages, "pack_files", lambda: files)
    [line] = [line for line in check(written, capsys) if "evidence.md" in line]
    assert line.startswith("docs/reference/policy-pack/evidence.md is out of date.")
    assert "python -m include.reference" in line


def test_check_prints_outdated_page_and_update_command_after_command_line_option_was_added(
    written: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def migrate(offline: Annotated[bool, typer.Option(help="Print SQL only.")] = False) -> None:
        del offline

    migrate.__doc__ = config.migrate.__doc__
    monkeypatch.setattr("include.cli.config.migrate", migrate)
    [line] = check(written, capsys)
    assert line.startswith("docs/reference/commands/top-level.md is out of date.")
    assert "python -m include.reference" in line


def test_check_prints_outdated_page_and_update_command_after_connection_was_added(
    written: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scales = DeclaredConnection("scales_api", ("http",), "Reads scales.", "", "host", "none")
    declared = (*connection_pages.CONNECTIONS, scales)
    monkeypatch.setattr(connection_pages, "CONNECTIONS", declared)
    [line] = check(written, capsys)
    assert line.startswith("docs/reference/connections.md is out of date.")
    assert "python -m include.reference" in line


def test_check_of_reference_reports_missing_and_superfluous_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate.write(tmp_path)
    folder = tmp_path / "docs" / "reference" / "policy-pack"
    (folder / "backup.md").rename(folder / "gone.md")
    lines = check(tmp_path, capsys)
    assert [line.partition(" Run ")[0] for line in lines] == [
        "docs/reference/policy-pack/backup.md is missing.",
        "docs/reference/policy-pack/gone.md is not generated any more.",
    ]


def test_write_deletes_superfluous_generated_pages_and_keeps_handwritten_pages(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "docs" / "reference"
    folder.mkdir(parents=True)
    (folder / "old.md").write_text(f"{generate.MARK}\n", encoding="utf-8")
    (folder / "roles.md").write_text("# Roles\n", encoding="utf-8")
    generate.write(tmp_path)
    assert not (folder / "old.md").exists()
    assert (folder / "roles.md").exists()


def test_reference_table_row_raises_lookup_error_for_policy_pack_key_without_description() -> None:
    class Undocumented(EvidenceRules):
        grace: int = 3

    [key] = [key for key in keys_of(Undocumented) if key.path == "grace"]
    with pytest.raises(LookupError, match="Undocumented: the docstring does not describe grace"):
        key.row()


def test_reference_describes_exactly_the_pack_files_that_the_loader_reads() -> None:
    from include.policy.loader import WITH_DEFAULT, WITHOUT_DEFAULT
    from include.registry import sections

    read = {*WITH_DEFAULT, *WITHOUT_DEFAULT, "datamap/*.yaml", "quality/*.yaml"}
    read |= {section.file for section in sections()}
    assert {file.name for file in pack_files.pack_files()} == read
