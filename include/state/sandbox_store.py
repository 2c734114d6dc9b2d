"""Where a drill keeps what it would otherwise write to a store: tables beside its state.

It is gone with the schema in which the tables are. Several processes use it at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, func, select
from sqlalchemy.dialects.postgresql import insert

from include.services.clock import Clock
from include.services.errors import UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectVersion,
    StoredObject,
    StoreError,
    StoreProblem,
    read_whole,
)
from include.services.objectstore.keys import checked_key, checked_list_prefix, checked_lock_end
from include.state.sandbox_objects import (
    SandboxReader,
    SandboxWriter,
    sandbox_object,
    sandbox_upload,
)


class SandboxStore:
    """Objects in tables; see ``ObjectStore``. It keeps no versions.

    Args:
        state: the state of a drill.
        name: of the store that it stands for, ``evidence_store``.
        clock: the time.
        site: where it is said to stand.
    """

    kind = "sandbox"

    def __init__(self, state: Engine, name: str, clock: Clock, site: str = "") -> None:
        self._state, self._name, self._clock, self.site = state, name, clock, site
        self.description = f"the drill's {name}"

    def preflight(self) -> Sequence[StoreProblem]:
        """It has all that a drill needs."""
        return ()

    def open_writer(self, key: str) -> SandboxWriter:
        """Open a streaming writer; raises ObjectLocked when the object is locked."""
        return self._open_writer(key, None)

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        """Store a small object in one call; raises ObjectLocked when the object is locked."""
        end = checked_lock_end(locked_until) if locked_until else None
        with self._open_writer(key, end) as writer:
            writer.write(data)
            return writer.commit()

    def open_reader(self, key: str, *, version_id: str = "") -> SandboxReader:
        """Open a streaming reader; there are no versions to choose from."""
        checked_key(key)
        self._refuse_version(key, version_id)
        with self._state.connect() as conn:
            row = self._row(conn, key)
        return SandboxReader(self._state, row["upload_id"], row["size"])

    def get(self, key: str, *, version_id: str = "", limit: int | None = None) -> bytes:
        """Return a small object whole; raises ObjectDamaged when it is larger than the limit."""
        with self.open_reader(key, version_id=version_id) as reader:
            return read_whole(reader, limit, key, self.description)

    def stat(self, key: str, *, version_id: str = "") -> StoredObject:
        """Return size, time and lock."""
        checked_key(key)
        self._refuse_version(key, version_id)
        with self._state.connect() as conn:
            row = self._row(conn, key)
        return replace(_stored(row), locked_until=row["locked_until"])

    def verify(self, expected: StoredObject) -> None:
        """Read the object again and compare size and SHA-256.

        Raises:
            UsageError: ``expected`` holds no SHA-256.
            ObjectMissing: there is no such object.
            ObjectDamaged: size or content differ.
        """
        if not expected.sha256:
            raise UsageError(f"The object {expected.key!r} was recorded without a SHA-256.")
        data = self.get(expected.key, version_id=expected.version_id)
        if (len(data), sha256(data).hexdigest()) != (expected.size, expected.sha256):
            raise ObjectDamaged(
                f"{expected.key!r} in {self.description} is not what was stored: its content "
                "differs."
            )

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose key begins with the prefix, in key order."""
        checked_list_prefix(prefix)
        query = select(sandbox_object).where(
            sandbox_object.c.store == self._name, func.starts_with(sandbox_object.c.key, prefix)
        )
        with self._state.connect() as conn:
            found = conn.execute(query.order_by(sandbox_object.c.key)).mappings().all()
        yield from map(_stored, found)

    def list_versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """Yield the objects as their only versions, in key order."""
        return map(ObjectVersion.only, self.list(prefix))

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders directly under a prefix, in the order of their keys."""
        parts = (each.key.removeprefix(prefix).partition("/") for each in self.list(prefix))
        yield from sorted({name for name, slash, _ in parts if slash}, key=lambda name: f"{name}/")

    def lock(self, key: str, until: datetime, *, version_id: str = "") -> None:
        """Refuse deletion and replacement until that moment; never shortens a lock.

        Raises:
            ObjectMissing: there is no such object.
            ObjectLocked: it is locked for longer already.
            StoreError: the moment has passed.
        """
        end = checked_lock_end(until)
        self._refuse_version(checked_key(key), version_id)
        self._check_future(key, end)
        with self._state.begin() as conn:
            present = self._row(conn, key)["locked_until"]
            if present and present > end:
                raise ObjectLocked(
                    f"{key!r} in {self.description} is locked until {present.isoformat()}, "
                    f"which cannot be shortened to {end.isoformat()}."
                )
            conn.execute(sandbox_object.update().where(*self._is(key)).values(locked_until=end))

    def require_deletable(self, key: str, now: datetime) -> None:
        """Look at the object's lock; raises ObjectLocked."""
        with self._state.connect() as conn:
            self._refuse_locked(conn, checked_key(key), now)

    def delete(self, key: str) -> None:
        """Remove the object; missing is fine.

        Raises:
            ObjectLocked: its lock has not ended.
        """
        with self._state.begin() as conn:
            self._refuse_locked(conn, checked_key(key), self._clock.now())
            gone = sandbox_object.delete().where(*self._is(key))
            uploads = conn.scalars(gone.returning(sandbox_object.c.upload_id)).all()
            conn.execute(sandbox_upload.delete().where(sandbox_upload.c.id.in_(uploads)))

    def clear_abandoned(self, prefix: str = "") -> int:
        """Remove what writers that were killed have left; none may be at work."""
        checked_list_prefix(prefix)
        done = select(sandbox_object.c.upload_id)
        with self._state.begin() as conn:
            return conn.execute(
                sandbox_upload.delete().where(
                    sandbox_upload.c.store == self._name,
                    func.starts_with(sandbox_upload.c.key, prefix),
                    sandbox_upload.c.id.not_in(done),
                )
            ).rowcount

    def _open_writer(self, key: str, lock_end: datetime | None) -> SandboxWriter:
        checked_key(key)
        if lock_end:
            self._check_future(key, lock_end)
        upload = uuid.uuid4()
        with self._state.begin() as conn:
            self._refuse_locked(conn, key, self._clock.now())
            conn.execute(sandbox_upload.insert().values(id=upload, store=self._name, key=key))

        def publish(conn: Connection, size: int, digest: str) -> StoredObject:
            now = self._clock.now()
            self._refuse_locked(conn, key, now)
            old = self._found(conn, key)
            row = {
                "upload_id": upload,
                "size": size,
                "modified_at": now,
                "sha256": digest,
                "locked_until": lock_end,
            }
            conn.execute(
                insert(sandbox_object)
                .values(store=self._name, key=key, **row)
                .on_conflict_do_update(constraint=sandbox_object.primary_key, set_=row)
            )
            if old is not None:
                gone = sandbox_upload.c.id == old["upload_id"]
                conn.execute(sandbox_upload.delete().where(gone))
            return replace(_stored({"key": key, **row}), locked_until=lock_end)

        return SandboxWriter(self._state, upload, publish)

    def _refuse_version(self, key: str, version_id: str) -> None:
        if version_id:
            raise ObjectMissing(f"{self.description} keeps no versions of {key!r}.")

    def _is(self, key: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return sandbox_object.c.store == self._name, sandbox_object.c.key == key

    def _found(self, conn: Connection, key: str) -> Mapping[str, Any] | None:
        row = conn.execute(select(sandbox_object).where(*self._is(key))).mappings().first()
        return None if row is None else dict(row)

    def _row(self, conn: Connection, key: str) -> Mapping[str, Any]:
        found = self._found(conn, key)
        if found is None:
            raise ObjectMissing(f"{self.description} has no object {key!r}.")
        return found

    def _check_future(self, key: str, end: datetime) -> None:
        if end <= self._clock.now():
            raise StoreError(
                f"Cannot lock {key!r} in {self.description} until {end.isoformat()}: "
                "that moment has passed.",
                "Choose a later moment.",
            )

    def _refuse_locked(self, conn: Connection, key: str, now: datetime) -> None:
        found = self._found(conn, key)
        end = found["locked_until"] if found else None
        if end and end > now:
            raise ObjectLocked(
                f"{key!r} in {self.description} is locked until {end.isoformat()}.",
                "Wait for its end.",
            )


def _stored(row: Mapping[str, Any] | RowMapping) -> StoredObject:
    return StoredObject(row["key"], row["size"], row["modified_at"], sha256=row["sha256"])
