"""Sample values of each base type of PostgreSQL, and the expected results of expectations.

Python computes these results from the texts of the values, without a query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

TIMEZONE = "Asia/Shanghai"
_DAY = 86_400_000_000  # microseconds
_EAST = _DAY // 3  # offset of the pack's timezone: its days begin eight hours earlier


def same(text: str) -> str:
    return text


@dataclass(frozen=True)
class BaseType:
    """A base type of PostgreSQL, its sample values, and functions that compute expected results.

    Attributes:
        samples: values as text, at least two different ones; empty if the server accepts no text
            for the type. The first value is in the value set of the test.
        member: the first value as an argument of a policy pack.
        text: function that returns the canonical text of a value; None if patterns do not apply.
        length: function that returns the length of a value; None for the length of its text.
        order: function that returns the sort key of a value, or None for NaN; None if ranges do not
            apply.
        ends: lowest and highest value of the range.
        inside: function that returns whether a value is in the range; None to compare sort keys.
        equal: function that returns a key that equal values share; None if PostgreSQL cannot
            compare the values for equality.
        declared: declared type of the column; None for the name of the type.
    """

    samples: Sequence[str]
    member: Any = None
    text: Callable[[str], str] | None = None
    length: Callable[[str], int] | None = None
    order: Callable[[str], Any] | None = None
    ends: tuple[Any, Any] | None = None
    inside: Callable[[str], bool] | None = None
    equal: Callable[[str], Hashable] | None = same
    declared: str | None = None

    @property
    def first(self) -> Any:
        return self.samples[0] if self.member is None else self.member

    def lengths(self) -> Callable[[str], int] | None:
        if self.length is not None or self.text is None:
            return self.length
        text = self.text
        return lambda value: len(text(value))

    def in_range(self, value: str) -> bool:
        """Return whether a value is in the range of `ends`, which are both included."""
        if self.inside is not None:
            return self.inside(value)
        assert self.order is not None
        assert self.ends is not None
        low, high = (self.order(str(end)) for end in self.ends)
        key = self.order(value)
        return key is not None and bool(low <= key <= high)


def ordered(*samples: str, **more: Any) -> BaseType:
    """Create a base type from sample values in ascending order."""
    ends = (samples[0], samples[-2])
    return BaseType(samples, order=samples.index, ends=ends, **more)


def whole(*samples: str) -> BaseType:
    return BaseType(samples, int(samples[0]), str, None, int, (5, 70), equal=int)


def _number(text: str) -> Decimal | None:
    number = Decimal(text)
    return None if number.is_nan() else number


def _float(text: str) -> float | None:
    number = float(text)
    return None if math.isnan(number) else number


def _nan(text: str) -> Hashable:
    return "NaN" if text == "NaN" else float(text)


def _day(text: str) -> float:
    """Return the number of days since a fixed date; negative for years BC."""
    if text.endswith("infinity"):
        return -math.inf if text.startswith("-") else math.inf
    if text.endswith(" BC"):
        return -1e6
    return date.fromisoformat(text[:10]).toordinal()


def _moment(text: str) -> float:
    """Return a time in microseconds. A time without an offset is read as UTC."""
    if text.endswith(("infinity", " BC")):
        return _day(text) * _DAY
    moment = datetime.fromisoformat(text)
    local = moment.replace(tzinfo=UTC) - datetime(1, 1, 1, tzinfo=UTC)
    return (local - (moment.utcoffset() or timedelta())) // timedelta(microseconds=1)


def _in_february(text: str) -> bool:
    """Return whether a timestamp without a timezone is on 28 or 29 February 2024."""
    return _moment("2024-02-28T00:00") <= _moment(text) < _moment("2024-03-01T00:00")


def _in_february_of_china(text: str) -> bool:
    """Return whether a time is on 28 or 29 February 2024 in the pack's timezone."""
    low, high = (_moment(f"2024-{day}T00:00") - _EAST for day in ("02-28", "03-01"))
    return low <= _moment(text) < high


def _c_order(text: str) -> bytes:
    return text.encode()


def _unpadded(text: str) -> str:
    return text.rstrip(" ")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _mac(text: str) -> str:
    return text.lower()


def plain(*samples: str, equal: Callable[[str], Hashable] | None = same) -> BaseType:
    """Create a base type from different sample values that can only be compared for equality."""
    return BaseType(samples, equal=equal)


_TEXTS = ("abc", "Ab", "", "日本", "ab d")
UUIDS = [f"{letter}0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" for letter in "abcd"]
STRING = BaseType(_TEXTS, None, same, None, _c_order, ("Ab", "abc"))
TYPES: dict[str, BaseType] = {
    "bool": BaseType(("true", "false"), True),
    "text": STRING,
    "varchar": BaseType(_TEXTS, None, same, None, _c_order, ("Ab", "abc"), declared="varchar(9)"),
    "name": STRING,
    "bpchar": BaseType(
        ("abc", "ab", "a b", "日本", "abcdef"), "abc ", _unpadded, None,
        lambda text: text.rstrip(" ").encode(), ("ab", "abc"), equal=_unpadded, declared="char(6)",
    ),
    "char": BaseType(("b", "a", "c"), None, same, None, _c_order, ("a", "b")),
    "int2": whole("7", "-7", "70", "700"),
    "int4": whole("7", "-7", "70", "2147483647"),
    "int8": whole("7", "-7", "70", "9223372036854775807"),
    "oid": whole("7", "0", "70", "4294967295"),
    "numeric": BaseType(
        ("1.50", "-2", "NaN", "Infinity", "-Infinity", "100"), 1.5, same, None, _number,
        (0, 100), equal=lambda text: "NaN" if text == "NaN" else Decimal(text),
    ),
    "float4": BaseType(
        ("0.1", "-2", "NaN", "Infinity", "-Infinity"), 0.1, None, None, _float, (-2.0, 0.1),
        equal=_nan,
    ),
    "float8": BaseType(
        ("0.1", "-2", "NaN", "Infinity", "-Infinity"), 0.1, None, None, _float, ("-2", "0.10"),
        equal=_nan,
    ),
    "money": BaseType(
        ("12.50", "-3.00", "1.00", "1000.00"), 12.5, same, None, Decimal, (0, 12.5), equal=Decimal
    ),
    "uuid": BaseType(
        UUIDS, UUIDS[0].upper(), same, None, same, (UUIDS[1].upper(), UUIDS[2]),
        lambda text: text in UUIDS[1:3],
    ),
    "inet": ordered("10.0.0.0/8", "10.0.0.1/32", "10.0.0.2/32", "2001:db8::1/128", text=same),
    "cidr": ordered("10.0.0.0/8", "10.0.0.0/9", "11.0.0.0/8", "2001:db8::/32", text=same),
    "macaddr": ordered("00:00:00:00:00:01", "08:00:2b:01:02:03", "ff:00:00:00:00:00", text=same),
    "macaddr8": ordered(
        "00:00:00:00:00:00:00:01", "08:00:2b:01:02:03:04:05", "ff:00:00:00:00:00:00:00", text=same
    ),
    "date": BaseType(
        ("2024-02-29", "2024-02-28", "2024-03-01", "infinity", "-infinity", "0044-03-15 BC"),
        order=_day, ends=("2024-02-28", "2024-02-29"),
    ),
    "timestamp": BaseType(
        ("2024-02-29T00:00", "2024-02-28T00:00", "2024-02-29T23:59:59.999999", "2024-03-01T00:00",
         "infinity", "-infinity", "0044-03-15 BC"),
        order=_moment, ends=("2024-02-28", "2024-02-29"), inside=_in_february,
    ),
    "timestamptz": BaseType(
        ("2024-02-29T00:00+08:00", "2024-02-27T16:00+00:00", "2024-02-29T15:59:59.999999+00:00",
         "2024-02-29T16:00+00:00", "2024-03-01T00:00+09:00", "infinity", "-infinity"),
        "2024-02-29", order=_moment, ends=("2024-02-28", "2024-02-29"),
        inside=_in_february_of_china, equal=_moment,
    ),
    "time": ordered("00:00", "08:30", "23:59:59.5", "24:00"),
    "timetz": plain("08:30+08", "08:30+00"),
    "interval": ordered("P-1D", "PT0S", "PT23H", "P1D", "P1M"),
    "bytea": BaseType((r"\x0aff", r"\x", r"\x0afe"), r"\x0AFF", length=lambda t: len(_bytes(t))),
    "bit": BaseType(("101", "100"), length=len, declared="bit(3)"),
    "varbit": BaseType(("101", "", "1010"), length=len),
    "jsonb": plain('{"a": 1}', "[]", '"a"'),
    "xid": plain("7", "8"),
    "xid8": plain("7", "8"),
    "cid": plain("7", "8"),
    "tid": plain("(0,1)", "(0,2)"),
    "pg_lsn": plain("16/B374D848", "0/0"),
    "pg_snapshot": plain("10:20:10", "10:20:", equal=None),
    "txid_snapshot": plain("10:20:10", "10:20:", equal=None),
    "tsvector": plain("'a':1", "'b'"),
    "tsquery": plain("'a' & 'b'", "'b'"),
    "aclitem": plain("postgres=r/postgres", "postgres=w/postgres"),
    "refcursor": plain("a", "b", equal=None),
    "json": plain('{"a": 1}', "[]", equal=None),
    "jsonpath": plain("$.a", "$.b", equal=None),
    "xml": BaseType((), "<a/>", equal=None),  # this server was built without libxml
    "point": plain("(1,2)", "(1,3)", equal=None),
    "line": plain("{1,2,3}", "{1,2,4}", equal=None),
    "lseg": plain("[(1,2),(3,4)]", "[(1,2),(3,5)]", equal=None),
    "box": plain("(3,4),(1,2)", "(3,5),(1,2)", equal=None),
    "path": plain("((1,2),(3,4))", "((1,2),(3,5))", equal=None),
    "polygon": plain("((1,2),(3,4))", "((1,2),(3,5))", equal=None),
    "circle": plain("<(1,2),3>", "<(1,2),4>", equal=None),
    "regclass": plain("pg_class", "pg_type"),
    "regcollation": plain('"C"', '"POSIX"'),
    "regconfig": plain("simple", "english"),
    "regdictionary": plain("simple", "english_stem"),
    "regnamespace": plain("pg_catalog", "public"),
    "regoper": plain("||/", "|/"),
    "regoperator": plain("+(integer,integer)", "-(integer,integer)"),
    "regproc": plain("now", "version"),
    "regprocedure": plain("now()", "version()"),
    "regrole": plain("postgres", "pg_monitor"),
    "regtype": plain("integer", "text"),
}  # fmt: skip
# Internal types of the server without a text input: only null can be stored.
WITHOUT_VALUES = {
    "gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies",
    "pg_mcv_list", "pg_ndistinct", "pg_node_tree",
}  # fmt: skip
# Types that a database declares: statement, and values.
DECLARED: dict[str, tuple[str, BaseType]] = {
    "state": ("CREATE TYPE state AS ENUM ('new', 'lost', 'found', 'old')",
              ordered("new", "lost", "found", "old", text=same)),
    "amount": ("CREATE DOMAIN amount AS numeric(10, 2) CHECK (VALUE > -10)",
               BaseType(("1.50", "-2.00", "100.00"), "1.5", same, None, Decimal, (0, 50),
                        equal=Decimal)),
    "code": ("CREATE DOMAIN code AS char(4)",
             BaseType(("ab", "abc", "b"), None, same, None, _c_order, ("ab", "abc"))),
    "pair": ("CREATE TYPE pair AS (a int, b text)", plain("(1,x)", "(,)", "(2,)")),
    "odd": ("CREATE TYPE odd AS (a int, b json)", plain("(1,1)", "(2,2)", equal=None)),
    "int4range": ("SELECT 1", plain("[1,5)", "empty")),
    "nummultirange": ("SELECT 1", plain("{[1.0,5.0)}", "{}")),
}  # fmt: skip
