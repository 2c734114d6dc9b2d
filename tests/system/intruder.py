"""Changes by an intruder who has the right to write to an off-site store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.system.company import Bucket, Company

Undo = Callable[[], None]


class Intruder(Protocol):
    """An intruder who changes objects of a store without using ParcelSeal."""

    def remove(self, key: str) -> Undo:
        """Remove an object, and return a function that restores it."""
        ...

    def overwrite(self, key: str) -> Undo:
        """Overwrite an object, and return a function that restores its content."""
        ...

    def replace(self, key: str, content: bytes) -> None:
        """Store other content under the key of an object."""
        ...

    def contents(self, prefix: str) -> dict[str, set[str]]:
        """Return the names of the objects whose bytes are still stored, by folder.

        Objects that a delete marker or a newer version hides are included.
        """
        ...


def intruder_of(company: Company) -> Intruder:
    """Return the intruder for a company's off-site store."""
    return InBucket(company.bucket) if company.bucket else InDirectory(company)


@dataclass(frozen=True)
class InDirectory:
    """An intruder who can write to a directory."""

    company: Company

    def remove(self, key: str) -> Undo:
        """Delete the file."""
        path = self.company.folder / "offsite" / key
        content = path.read_bytes()
        path.unlink()

        def undo() -> None:
            path.write_bytes(content)

        return undo

    def overwrite(self, key: str) -> Undo:
        """Change the first byte of the file."""
        path = self.company.folder / "offsite" / key
        undo = self.remove(key)
        undo()
        content = path.read_bytes()
        self.replace(key, bytes([content[0] ^ 1]) + content[1:])

        def put_back() -> None:
            path.unlink()
            path.write_bytes(content)

        return put_back

    def replace(self, key: str, content: bytes) -> None:
        """Replace the file."""
        path = self.company.folder / "offsite" / key
        path.unlink()
        path.write_bytes(content)

    def contents(self, prefix: str) -> dict[str, set[str]]:
        """Return the names of the files by folder."""
        root = self.company.folder / "offsite" / prefix
        folders = [entry for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
        return {
            folder.name: {file.name for file in folder.iterdir() if not file.name.startswith(".")}
            for folder in folders
        }


@dataclass(frozen=True)
class InBucket:
    """An intruder whose access key may write and delete in a bucket with Object Lock."""

    bucket: Bucket

    def remove(self, key: str) -> Undo:
        """Hide the object behind a delete marker."""
        answer = self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)
        return self._undo(key, answer["VersionId"])

    def overwrite(self, key: str) -> Undo:
        """Hide the object behind a newer version."""
        answer = self.bucket.client.put_object(
            Bucket=self.bucket.name, Key=key, Body=b"overwritten"
        )
        return self._undo(key, answer["VersionId"])

    def replace(self, key: str, content: bytes) -> None:
        """Store a newer version."""
        self.bucket.client.put_object(Bucket=self.bucket.name, Key=key, Body=content)

    def contents(self, prefix: str) -> dict[str, set[str]]:
        """Return the names of the objects that have a version, by folder."""
        pages = self.bucket.client.get_paginator("list_object_versions").paginate(
            Bucket=self.bucket.name, Prefix=f"{prefix}/"
        )
        folders: dict[str, set[str]] = {}
        for page in pages:
            for version in page.get("Versions", []):
                folder, _, name = version["Key"].removeprefix(f"{prefix}/").partition("/")
                folders.setdefault(folder, set()).add(name)
        return folders

    def _undo(self, key: str, version: str) -> Undo:
        def undo() -> None:
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key, VersionId=version)

        return undo
