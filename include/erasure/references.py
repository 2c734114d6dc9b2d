"""The record that a foreign key refers to, and how the two are compared.

By the key's own operators and by the parent's collation, as PostgreSQL itself does. A plain ``=``
is another one where the columns differ in collation or the key uses another operator class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Identifier, Literal

COMPARED = """array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY ord)
           AS columns,
       array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY ord)
           AS targets,
       array(SELECT ARRAY[n.nspname::text, o.oprname::text]
             FROM unnest(k.conpfeqop) WITH ORDINALITY u(op, ord)
             JOIN pg_operator o ON o.oid = u.op JOIN pg_namespace n ON n.oid = o.oprnamespace
             ORDER BY ord) AS operators,
       array(SELECT CASE WHEN a.attcollation <> b.attcollation
                    THEN ARRAY[n.nspname::text, l.collname::text] ELSE ARRAY['', ''] END
             FROM unnest(k.confkey, k.conkey) WITH ORDINALITY u(theirs, mine, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.theirs
             JOIN pg_attribute b ON b.attrelid = k.conrelid AND b.attnum = u.mine
             LEFT JOIN pg_collation l ON l.oid = a.attcollation
             LEFT JOIN pg_namespace n ON n.oid = l.collnamespace ORDER BY ord) AS collations"""
"""Columns of a query over ``pg_constraint k``: the first four attributes of a `Reference`."""


@dataclass(frozen=True)
class Reference:
    """How a foreign key compares.

    Attributes:
        columns: of the child.
        targets: of the parent, in the same order.
        operators: schema and name of the operators that compare parent and child, by column.
        collations: schema and name of the parent's collation where the child has another; else
            twice nothing.
        partitions: oids of the tables whose records it leads to; any of the parent where empty.
    """

    columns: Sequence[str]
    targets: Sequence[str]
    operators: Sequence[Sequence[str]]
    collations: Sequence[Sequence[str]]
    partitions: Sequence[int] = ()

    def joined(self, child: str, parent: str) -> Composable:
        """The condition that a child's record refers to a parent's, for a query without parameters.

        Args:
            child: alias of the child, whose columns are called as in the table.
            parent: alias of the parent, likewise, with its ``tableoid``.
        """
        same: list[Composable] = []
        for at, (mine, theirs) in enumerate(zip(self.columns, self.targets, strict=True)):
            schema, operator = self.operators[at]
            by: Composable = SQL("")
            if self.collations[at][1]:
                by = SQL(" COLLATE {}").format(Identifier(*self.collations[at]))
            same.append(
                SQL("{} OPERATOR({}.{}) {}{}").format(
                    Identifier(parent, theirs),
                    Identifier(schema),
                    SQL(operator),
                    Identifier(child, mine),
                    by,
                )
            )
        if self.partitions:
            where = Identifier(parent, "tableoid")
            same.append(SQL("{} = ANY ({}::oid[])").format(where, Literal(list(self.partitions))))
        return SQL("({})").format(SQL(" AND ").join(same))
