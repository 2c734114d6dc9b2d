"""PostgreSQL types and fideslang data types: which go together."""

from __future__ import annotations

from include.schema.live import LiveColumn

# fideslang knows string, integer, float, boolean, object and object_id, each also as an array
# (fideslang.models, DataType of Fides). What it has no word for - dates, uuids, networks, bytes,
# enums, ranges - is a string there, as Fides' own PostgreSQL maps write it.
_TYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), ("integer",)),
    **dict.fromkeys(("float4", "float8"), ("float",)),
    "numeric": ("float",),
    "money": ("float", "string"),
    "bool": ("boolean",),
    **dict.fromkeys(("json", "jsonb", "hstore"), ("object", "string")),
    "xml": ("string", "object"),
    "uuid": ("string", "object_id"),
}
_ANY_FORM = {"json", "jsonb"}  # may hold arrays, which a map may say


def fides_type(column: LiveColumn) -> str:
    """The fideslang data type that a draft names for a column."""
    return _types(column)[0] + ("[]" if column.is_array else "")


def agrees(column: LiveColumn, data_type: str) -> bool:
    """Whether a column holds what the map's fideslang data type says."""
    said, is_array = data_type.removesuffix("[]"), data_type.endswith("[]")
    if column.base in _ANY_FORM and is_array and not column.is_array:
        return True
    return is_array == column.is_array and said in _types(column)


def _types(column: LiveColumn) -> tuple[str, ...]:
    if column.form == "c":
        return ("object",)
    if column.base == "numeric" and column.type.endswith(",0)"):
        return ("integer", "float")
    return _TYPES.get(column.base, ("string", "object_id"))
