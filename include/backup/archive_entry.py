"""An entry of an archive's table of contents."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One line of the archive's table of contents.

    Attributes:
        dump_id: the archive's own number of the entry.
        oid: object identifier in the dumped database.
        kind: ``TABLE DATA``, ``INDEX``, ``FK CONSTRAINT`` and so on.
        section: 1 none, 2 before the data, 3 data, 4 after the data.
        definition: the SQL that creates it.
        position: of the definition in the archive, in bytes from its begin.
    """

    dump_id: int
    oid: int
    name: str
    kind: str
    section: int
    definition: str
    schema: str
    position: int = field(default=0, compare=False)

    @property
    def label(self) -> str:
        """Kind, schema and name for people."""
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        return name if name.startswith(self.kind) else f"{self.kind} {name}"
