"""CHECK constraints that refuse rows while a backup is loaded, because they call a function.

pg_dump writes a table's CHECK constraints into its definition, so each row is checked while it is
loaded. A function can read rows that are loaded later. PostgreSQL does not support such constraints
(its manual, ``ddl-constraints``, names this consequence), and no option of pg_restore defers them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from include.backup.explain import PROGRAM_ERROR, RAISED_BY_FUNCTION
from include.erasure.suspended import FIRST_OWN_OBJECT
from include.services.database import DatabaseAddress, connected
from include.services.errors import ParcelSealError, ServiceError

# A function of an extension reads no tables of the application.
_CONSTRAINTS = f"""
SELECT DISTINCT k.conname::text, n.nspname || '.' || c.relname
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
    AND d.refclassid = 'pg_proc'::regclass AND d.refobjid >= {FIRST_OWN_OBJECT}
WHERE k.contype = 'c' AND c.relname = %(table)s AND NOT EXISTS (
    SELECT FROM pg_depend e
    WHERE e.classid = 'pg_proc'::regclass AND e.objid = d.refobjid AND e.deptype = 'e')
ORDER BY 2, 1
"""  # noqa: S608 - fixed text
_LOADING = re.compile(r'COPY failed for table "(?P<table>.*)": (?P<severity>[^:]*):  (?P<text>.*)$')
_VIOLATED = re.compile(r'new row for relation ".*" violates check constraint "(?P<name>.*)"$')


class CheckRefusesRows(ServiceError):
    """A CHECK constraint that calls a function refused a row of the backup.

    Attributes:
        constraints: ``name of schema.table``, for people.
    """

    def __init__(self, target: DatabaseAddress, constraints: Sequence[str]) -> None:
        self.constraints = ", ".join(constraints)
        super().__init__(
            f"The backup cannot be loaded into {target.place}: a row was refused by the CHECK "
            f"constraint {self.constraints}, which calls a function. If the function reads other "
            "rows or tables, they may not be loaded yet: a limit of pg_dump.",
            "The target is incomplete: drop it. See docs/restore-runbook.md, CHECK constraints "
            "that read other rows.",
        )


def check_that_refused(output: str, target: DatabaseAddress) -> CheckRefusesRows | None:
    """Return the error for a CHECK constraint that calls a function, if it refused a row.

    Args:
        output: the first error of pg_restore.
        target: the database into which pg_restore loaded.
    """
    loading = _LOADING.match(PROGRAM_ERROR.sub("", output.partition("\n")[0]))
    if loading is None:
        return None
    violated = _VIOLATED.match(loading["text"])
    # Another error in English comes from a constraint only if its function raised the error.
    if loading["severity"] == "ERROR" and not violated and not RAISED_BY_FUNCTION.search(output):
        return None
    try:
        with connected(target) as connection:
            rows = connection.execute(_CONSTRAINTS, {"table": loading["table"]}).fetchall()
    except ParcelSealError:  # the failed load is reported instead
        return None
    names = [
        f"{name} of {table}" for name, table in rows if violated is None or violated["name"] == name
    ]
    return CheckRefusesRows(target, names) if names else None
