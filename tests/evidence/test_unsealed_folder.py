"""Files that are written into a bundle's folder before the bundle is sealed."""

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
    """Write a file into an unsealed folder in several pieces; return its digest."""
    with folder(store, number).writer(name) as writer:
        for start in range(0, len(CONTENT), 300_000):
            writer.write(CONTENT[start : start + 300_000])
        digest = writer.commit()
    assert digest.sha256 == DIGEST
    return digest.sha256


def test_sealed_bundle_contains_files_written_before_seal(evidence: Evidence) -> None:
    """SHA256SUMS lists the files, `sha256sum` accepts them, and the seal did not rewrite them."""
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


def test_seal_removes_files_that_no_step_recorded(evidence: Evidence) -> None:
    """An example is the sampling frame of a population whose step failed afterwards."""
    digest = written(evidence.store)
    written(evidence.store, "frames/failed.tsv")
    sealed = evidence.seal(stored={NAME: digest})
    assert {path.name for path in (evidence.root / sealed.path / "frames").iterdir()} == {
        "openings.tsv"
    }


@pytest.mark.parametrize("edited", [CONTENT + b"x", CONTENT[1:], b""])
def test_seal_raises_control_failed_if_file_was_edited_after_it_was_stored(
    evidence: Evidence, edited: bytes
) -> None:
    """The seal reads the file again and refuses it, so neither a bundle nor a ledger row exists."""
    digest = written(evidence.store)
    (evidence.root / bundle_of() / NAME).write_bytes(edited)
    with pytest.raises(ControlFailed, match=f"{NAME} was changed after this run stored it"):
        evidence.seal(stored={NAME: digest})
    assert not list(evidence.root.rglob("SHA256SUMS.sig"))
    (evidence.root / bundle_of() / NAME).write_bytes(CONTENT)
    assert evidence.seal(stored={NAME: digest}).seq == 1


def test_seal_raises_control_failed_if_file_was_removed_after_it_was_stored(
    evidence: Evidence,
) -> None:
    digest = written(evidence.store)
    (evidence.root / bundle_of() / NAME).unlink()
    with pytest.raises(ControlFailed, match=f"{NAME} was removed after this run stored it"):
        evidence.seal(stored={NAME: digest})


def test_evidence_file_keeps_its_previous_content_if_writer_is_closed_without_commit(
    evidence: Evidence,
) -> None:
    """If there is no previous content, the file does not exist."""
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
def test_writer_and_seal_raise_usage_error_if_file_name_is_invalid(
    evidence: Evidence, name: str
) -> None:
    """The writer and the seal refuse the name before anything is written."""
    with pytest.raises(UsageError, match="evidence file name"):
        folder(evidence.store).writer(name)
    with pytest.raises(UsageError, match="evidence file name"):
        evidence.seal(stored={name: DIGEST})
    assert not any(evidence.root.iterdir())


def test_other_runs_can_be_sealed_while_the_folder_of_a_run_is_unsealed(evidence: Evidence) -> None:
    """Verification accepts these runs, too."""
    digest = written(evidence.store)
    for number in (2, 3):
        evidence.seal(number)
        assert evidence.verify().verified, evidence.verify()
    assert evidence.seal(1, stored={NAME: digest}).seq == 3
    verification = evidence.verify()
    assert (verification.verified, verification.bundles) == (True, 3)


@pytest.mark.fault
@pytest.mark.parametrize("step", ["put report.en.html", "put signer.pem", "put SHA256SUMS"])
def test_killed_seal_with_stored_files_can_be_repeated(evidence: Evidence, step: str) -> None:
    """The second seal reads the files again, and deletes files that only the killed seal wrote."""
    digest = written(evidence.store)
    SealingAhead(evidence, 1, block_before=step).kill_when_blocked()
    sealed = evidence.seal(stored={NAME: digest})
    assert (evidence.root / sealed.path / NAME).read_bytes() == CONTENT
    assert not (evidence.root / sealed.path / "only-in-the-child.txt").exists()
    assert evidence.verify().verified


class SealingAhead(SealingProcess):
    """Another process, which seals a run whose folder already contains a file of a step."""

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
def test_file_written_before_seal_in_s3_is_locked_with_its_bundle(
    evidence: Evidence, endpoint: str, default_lock_days: int
) -> None:
    """An unfinished upload is removed, and a file that was edited before the seal is refused."""
    client = client_for(endpoint)
    bucket = new_bucket(client, default_lock_days=default_lock_days)
    store = S3Store(client, bucket, "evidence")
    written(store)
    client.create_multipart_upload(Bucket=bucket, Key=f"evidence/{bundle_of()}/frames/left.tsv")
    digest = written(store)
    more = {"store": store, "lock_until": UNTIL, "stored": {NAME: digest}}
    store.put(f"{bundle_of()}/{NAME}", CONTENT[1:])
    with pytest.raises(ControlFailed, match="was changed after this run stored it"):
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
