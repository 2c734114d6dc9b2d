"""Files that are written into a bundle's folder ahead of its seal, and what that makes of them."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from include.evidence.bundle import seal
from include.evidence.folder import bundle_path
from include.evidence.step_findings import UnsealedFolder
from include.evidence.verify import verify_all
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectLocked, ObjectMissing, ObjectStore
from include.services.objectstore.s3 import S3Store
from tests.evidence.support import CLOCK, FILES, Evidence, SealingProcess, result_of
from tests.support.s3 import client_for, new_bucket, unfinished_uploads

UNTIL = datetime.now(UTC) + timedelta(days=1)  # noqa: TID251 - the server's own clock decides
NAME = "frames/openings.tsv"
CONTENT = b"".join(b"%d\n" % number for number in range(1, 200_000))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def bundle_of(number: int = 1) -> str:
    run = result_of(number=number).run
    return bundle_path(run.dag_id, run.run_id, run.started_at)


def folder(store: ObjectStore, number: int = 1) -> UnsealedFolder:
    return UnsealedFolder(store, bundle_of(number))


def written(store: ObjectStore, name: str = NAME, number: int = 1) -> str:
    """Write a file ahead, in pieces; returns its digest."""
    with folder(store, number).writer(name) as writer:
        for start in range(0, len(CONTENT), 300_000):
            writer.write(CONTENT[start : start + 300_000])
        found = writer.commit()
    assert found.sha256 == DIGEST
    return found.sha256


def test_what_was_written_ahead_is_in_the_bundle_and_its_sums(evidence: Evidence) -> None:
    """Signed with the others; coreutils agrees, and nothing was written anew."""
    digest = written(evidence.store)
    path = evidence.root / bundle_of() / NAME
    before = path.stat()
    sealed = evidence.seal(stored={NAME: digest})
    assert path.stat().st_ino == before.st_ino
    assert path.read_bytes() == CONTENT
    sums = (evidence.root / sealed.path / "SHA256SUMS").read_text().splitlines()
    assert f"{DIGEST}  {NAME}" in sums
    subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"],
        cwd=evidence.root / sealed.path,
        capture_output=True,
        check=True,
    )
    assert evidence.verify().verified
    path.write_bytes(CONTENT[:-1])
    assert not evidence.verify().verified


def test_what_nobody_names_is_cleared_away(evidence: Evidence) -> None:
    """A frame of a population that failed afterwards is no evidence."""
    digest = written(evidence.store)
    written(evidence.store, "frames/failed.tsv")
    sealed = evidence.seal(stored={NAME: digest})
    assert {one.name for one in (evidence.root / sealed.path / "frames").iterdir()} == {
        "openings.tsv"
    }


@pytest.mark.parametrize("edited", [CONTENT + b"x", CONTENT[1:], b""])
def test_what_was_edited_is_not_sealed(evidence: Evidence, edited: bytes) -> None:
    """The seal reads it again; there is no bundle and no row."""
    digest = written(evidence.store)
    (evidence.root / bundle_of() / NAME).write_bytes(edited)
    with pytest.raises(ControlFailed, match=f"{NAME} was changed before the seal"):
        evidence.seal(stored={NAME: digest})
    assert not list(evidence.root.rglob("SHA256SUMS.sig"))
    (evidence.root / bundle_of() / NAME).write_bytes(CONTENT)
    assert evidence.seal(stored={NAME: digest}).seq == 1


def test_what_was_removed_is_missed(evidence: Evidence) -> None:
    """Somebody took it away; the run is not sealed without it."""
    digest = written(evidence.store)
    (evidence.root / bundle_of() / NAME).unlink()
    with pytest.raises(ControlFailed, match=f"{NAME} was removed before the seal"):
        evidence.seal(stored={NAME: digest})


def test_a_file_is_there_whole_or_not_at_all(evidence: Evidence) -> None:
    """A writer that is left without an end leaves what was there before."""
    ahead = folder(evidence.store)
    with ahead.writer(NAME) as writer:
        writer.write(b"half")
    with pytest.raises(ObjectMissing):
        ahead.reader(NAME)
    written(evidence.store)
    with ahead.writer(NAME) as writer:
        writer.write(b"half")
    with ahead.reader(NAME) as reader:
        assert reader.read() == CONTENT


@pytest.mark.parametrize("name", ["../x", "/etc/x", "SHA256SUMS", "result.json", "a//b", ""])
def test_a_name_that_no_bundle_has_is_refused(evidence: Evidence, name: str) -> None:
    """Before anything is written, and by the seal too."""
    with pytest.raises(UsageError, match="evidence file name"):
        folder(evidence.store).writer(name)
    with pytest.raises(UsageError, match="evidence file name"):
        evidence.seal(stored={name: DIGEST})
    assert not any(evidence.root.iterdir())


def test_a_folder_that_waits_for_its_seal_disturbs_no_other_evidence(evidence: Evidence) -> None:
    """For a week, perhaps: other runs are sealed, and everything verifies meanwhile."""
    digest = written(evidence.store)
    for number in (2, 3):
        evidence.seal(number)
        assert evidence.verify().verified, evidence.verify()
    assert evidence.seal(1, stored={NAME: digest}).seq == 3
    found = evidence.verify()
    assert (found.verified, found.bundles) == (True, 3)


@pytest.mark.fault
@pytest.mark.parametrize("step", ["put report.en.html", "put signer.pem", "put SHA256SUMS"])
def test_a_seal_that_was_killed_is_repeated_with_what_was_written_ahead(
    evidence: Evidence, step: str
) -> None:
    """It is read once more; what only the killed one knew is cleared away."""
    digest = written(evidence.store)
    SealingAhead(evidence, 1, block_before=step).kill_when_blocked()
    sealed = evidence.seal(stored={NAME: digest})
    assert (evidence.root / sealed.path / NAME).read_bytes() == CONTENT
    assert not (evidence.root / sealed.path / "only-in-the-child.txt").exists()
    assert evidence.verify().verified


class SealingAhead(SealingProcess):
    """Another process that seals with the file."""

    def _seal(self) -> None:
        from include.state.connect import engine
        from tests.evidence.support import BlockingStore

        store = BlockingStore(self.evidence.root, self.block_before, self.blocked)
        with engine(self.evidence.database).connect() as conn:
            seal(
                store,
                conn,
                self.evidence.signer,
                result=result_of(self.dag_id, self.number),
                files=FILES | {"only-in-the-child.txt": b"x"},
                stored={NAME: DIGEST},
                clock=CLOCK,
            )


@pytest.mark.parametrize("default_lock_days", [0, 1])
def test_in_s3_it_is_locked_with_its_bundle(
    evidence: Evidence, endpoint: str, default_lock_days: int
) -> None:
    """Written twice, left unfinished once, edited once; then sealed, locked and verified."""
    client = client_for(endpoint)
    bucket = new_bucket(client, default_lock_days=default_lock_days)
    store = S3Store(client, bucket, "evidence")
    written(store)
    client.create_multipart_upload(Bucket=bucket, Key=f"evidence/{bundle_of()}/frames/left.tsv")
    digest = written(store)
    more = {"store": store, "lock_until": UNTIL, "stored": {NAME: digest}}
    store.put(f"{bundle_of()}/{NAME}", CONTENT[1:])
    with pytest.raises(ControlFailed, match="was changed before the seal"):
        evidence.seal(1, **more)
    written(store)
    sealed = evidence.seal(1, **more)
    assert evidence.seal(1, **more) == sealed
    assert unfinished_uploads(client, bucket) == 0
    assert f"{DIGEST}  {NAME}\n".encode() in store.get(f"{sealed.path}/SHA256SUMS")
    assert store.stat(f"{sealed.path}/{NAME}").locked_until is not None
    with pytest.raises(ObjectLocked):
        store.delete(f"{sealed.path}/{NAME}")
    trusted = [evidence.signer.public_pem]
    assert verify_all(store, evidence.conn, trusted).verified
    store.put(f"{sealed.path}/{NAME}", b"a new version hides the locked one")
    assert verify_all(store, evidence.conn, trusted).first_bad == sealed.path
