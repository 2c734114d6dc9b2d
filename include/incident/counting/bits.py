"""Data categories as bits of a few numbers: what records have of a person is put together by OR."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from psycopg.sql import SQL, Composable, Identifier, Literal

_BITS = 62  # of a bigint that stays positive


class Bits:
    """A bit for each name, in the columns ``m0``, ``m1`` and so on.

    Args:
        names: of data categories.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._places = {name: divmod(at, _BITS) for at, name in enumerate(names)}
        self._masks = range(max(len(names) - 1, 0) // _BITS + 1)

    def columns(self, values: Mapping[str, Composable], whole: Collection[str] = ()) -> Composable:
        """The columns of a row.

        Args:
            values: by name, whether the row has a value; names without a bit are left out.
            whole: names of which every row has one, so that nobody has to look.
        """
        constant = [0 for _ in self._masks]
        parts: list[list[Composable]] = [[] for _ in self._masks]
        for name, condition in values.items():
            if name not in self._places:
                continue
            mask, bit = self._places[name]
            if name in whole:
                constant[mask] |= 1 << bit
            else:
                has = SQL("CASE WHEN {} THEN {}::bigint ELSE 0 END")
                parts[mask].append(has.format(condition, Literal(1 << bit)))
        return SQL(", ").join(
            SQL("{} AS {}").format(
                SQL(" | ").join([SQL("{}::bigint").format(Literal(constant[mask])), *parts[mask]]),
                self._column(mask),
            )
            for mask in self._masks
        )

    @property
    def merged(self) -> Composable:
        """The columns of all rows of a person."""
        return SQL(", ").join(
            SQL("bit_or({0}) AS {0}").format(self._column(mask)) for mask in self._masks
        )

    def has(self, name: str) -> Composable:
        """Whether the bit of a name is set."""
        mask, bit = self._places[name]
        return SQL("{} & {}::bigint <> 0").format(self._column(mask), Literal(1 << bit))

    @staticmethod
    def _column(mask: int) -> Composable:
        return Identifier(f"m{mask}")
