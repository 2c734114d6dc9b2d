"""Evidence that was touched is noticed, and an outsider can check it with openssl alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.local.profile import LocalProfile
from tests.e2e.conftest import Cli
from tests.support.damage import flip
from tests.support.registers import unguarded

pytestmark = pytest.mark.airflow

KEYS = {"verified", "bundles", "first_bad", "reason"}


@pytest.fixture
def bundle(drilled: dict[str, Any]) -> Path:
    """The sealed bundle of the sample's drill."""
    return Path(drilled["bundle"])


@contextmanager
def touched(path: Path) -> Iterator[None]:
    """Change one byte in the middle of a file, and put it back."""
    before = path.read_bytes()
    flip(path, len(before) // 2)
    try:
        yield
    finally:
        path.write_bytes(before)


def key(cli: Cli, bundle: Path) -> str:
    return bundle.relative_to(cli.home / "evidence").as_posix()


def test_untouched_evidence_is_verified(cli: Cli, bundle: Path):
    """All of it, and one bundle alone."""
    everything = cli.json("verify", "--all")
    assert set(everything) == KEYS
    assert everything["verified"] is True
    assert everything["bundles"] >= 2
    assert (everything["first_bad"], everything["reason"]) == (None, None)
    assert cli.json("verify", str(bundle))["verified"] is True


@pytest.mark.parametrize("name", ["result.json", "report.en.html", "SHA256SUMS", "SHA256SUMS.sig"])
def test_one_changed_byte_of_a_bundle_is_named(cli: Cli, bundle: Path, name: str):
    """The bundle is named and the exit code is 1."""
    with touched(bundle / name):
        said = cli.json("verify", "--all", code=1)
    assert set(said) == KEYS
    assert said["verified"] is False
    assert said["first_bad"] == key(cli, bundle)
    assert said["reason"]


def test_a_changed_row_of_the_ledger_is_named(cli: Cli, bundle: Path):
    """A failed control that somebody turns into a passed one."""
    change = "UPDATE evidence_ledger SET outcome = %s WHERE bundle = %s"
    owner = LocalProfile(cli.place.home).owner_conninfo("parcelseal_state")
    with psycopg.connect(owner, autocommit=True) as conn:
        with unguarded(conn, "evidence_ledger"):
            conn.execute(change, ["attention", key(cli, bundle)])
        try:
            said = cli.json("verify", "--all", code=1)
        finally:
            with unguarded(conn, "evidence_ledger"):
                conn.execute(change, ["pass", key(cli, bundle)])
    assert (said["verified"], said["first_bad"]) == (False, key(cli, bundle))


def test_the_printed_lines_check_a_bundle_without_parcelseal(cli: Cli, bundle: Path):
    """As they are printed, in a shell that knows nothing of us; and they notice a changed byte."""
    said = cli.call("verify", str(bundle)).stdout.splitlines()
    lines = [line.strip() for line in said[said.index("Check it without ParcelSeal:") + 1 :]]
    assert any("openssl" in line for line in lines)
    assert any("sha256sum" in line for line in lines)

    def check() -> int:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            check=False,
            capture_output=True,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
        ).returncode

    assert check() == 0
    for name in ("report.en.html", "SHA256SUMS"):
        with touched(bundle / name):
            assert check() != 0
