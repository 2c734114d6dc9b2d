"""Read YAML files safely, with the line of every key and item.

YAML 1.1 and YAML 1.2 read some unquoted values differently: ``010`` is 8 or 10, ``yes`` is true or
text, ``0o10`` is text or 8. Such a value is refused, because a pack decides which records are
deleted. ``true``, ``false``, ``null``, ``~`` and numbers in JSON format keep their meaning. All
other unquoted values are text, including ``12:30`` and ``2026-11-25`` (YAML 1.2.2, 10.3.2, core
schema).

The reader refuses tags, duplicate keys, keys that are not text, and more than one document per
file. Files must be UTF-8 and must not be too large or nested too deeply. The number of values is
limited; values that an alias repeats count again. The result consists only of values that JSON can
express.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from include.policy.problems import PackProblem

MAX_DIGITS = 4000  # Python refuses to convert longer numbers
_CONSTANTS: dict[str, bool | None] = {"null": None, "Null": None, "NULL": None, "~": None}
_CONSTANTS |= dict.fromkeys(("true", "True", "TRUE"), True)
_CONSTANTS |= dict.fromkeys(("false", "False", "FALSE"), False)
_BOOLEANS_OF_1_1 = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+][0-9]+)?", re.ASCII)
# Numbers of YAML 1.1 or 1.2, except sexagesimal numbers: an author who writes 12:30 means a time.
_NUMBER = re.compile(
    r"[-+]?(?:0b[01_]+|0x[0-9A-Fa-f_]+|0o[0-7]+|\.(?:inf|Inf|INF)"
    r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)


class AmbiguousScalar(ValueError):
    """Raised for an unquoted value that YAML 1.1 and YAML 1.2 read differently.

    Also raised for an empty value and for a number that cannot be stored exactly. The message
    states what to write instead.
    """


def plain_value(text: str) -> str | int | float | bool | None:
    """Return the Python value of an unquoted YAML scalar.

    Args:
        text: the scalar as written in the file.

    Raises:
        AmbiguousScalar: the scalar has several meanings, is empty, or is a number that cannot be
            stored exactly.
    """
    if not text:
        raise AmbiguousScalar(
            'the key has no value: write null for no value, "" for an empty text, or remove the key'
        )
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if meaning := _yaml_1_1_boolean(text):
        raise AmbiguousScalar(_choice(text, [meaning]))
    if not _NUMBER.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise AmbiguousScalar(f"a number has at most {MAX_DIGITS} digits")
    if _INTEGER.fullmatch(text) and text != "-0":
        return int(text)
    if _FLOAT.fullmatch(text):
        return _exact(text)
    raise AmbiguousScalar(_choice(text, list(dict.fromkeys(_possible_numbers(text)))))


def _yaml_1_1_boolean(text: str) -> str | None:
    forms = (text.lower(), text.upper(), text.capitalize())
    return _BOOLEANS_OF_1_1.get(text.lower()) if text in forms else None


def _exact(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise AmbiguousScalar(
            f'{text} has more digits than a number can store: write it as text, "{text}"'
        )
    return value


def _possible_numbers(text: str) -> Iterator[str]:
    """Yield, as decimal text, the numbers that YAML 1.1 or 1.2 may read from a scalar.

    Args:
        text: the scalar as written in the file.
    """
    digits = text.replace("_", "").lstrip("+")
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    prefix = digits[:2]
    if prefix in ("0b", "0x", "0o"):
        base = {"0b": 2, "0x": 16, "0o": 8}[prefix]
        yield str(int(f"{sign}{digits[2:] or '0'}", base))
    elif digits.isdigit():
        yield str(int(f"{sign}{digits}"))
        if digits.startswith("0") and set(digits) <= set("01234567"):
            yield str(int(f"{sign}{digits}", 8))
    elif digits[1:2].isdigit() or digits[:1].isdigit():
        number = float(digits)
        if math.isfinite(number):
            yield f"{sign}{int(number) if number == int(number) else number}"


def _choice(text: str, meanings: list[str]) -> str:
    numbers = ", ".join(meanings) or "a number that packs do not support"
    return (
        f'{text} can mean {numbers} or the text "{text}": write the intended value, text in quotes'
    )


MAX_BYTES = 5 * 1024 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 60
_MOST_TRIES = 5  # attempts to remove the faults of an item; each attempt may reveal more

_Item = TypeVar("_Item")

Loc = tuple[str | int, ...]

# The C parser, where PyYAML was built with it, is about eight times faster.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _TextLoader(_Base):  # type: ignore[misc] # PyYAML is untyped
    """A YAML loader that keeps each unquoted scalar as text.

    PyYAML itself would convert unquoted scalars by the rules of YAML 1.1.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute


_TAG = "tag:yaml.org,2002:"
_TEXT_TAG = _TAG + "str"
_MERGE_KEY = "<<"
_TYPE_NAMES = {
    bool: "a boolean value",
    int: "a number",
    float: "a number",
    type(None): "nothing (null)",
}


@dataclass(frozen=True)
class Document:
    """The content of one YAML file of a pack.

    Attributes:
        file: path inside the pack.
        data: content as Python values: dict, list, str, int, float, bool, None.
        lines: path of a key or item -> its line in the file, counted from 1. The path of the root
            is ``()``.
        refused: paths of values that were refused because YAML 1.1 and YAML 1.2 read them
            differently. In ``data`` these values are text.
        faults: problems of the refused values.
    """

    file: str
    data: Any
    lines: dict[Loc, int]
    refused: frozenset[Loc] = frozenset()
    faults: tuple[PackProblem, ...] = ()

    def value_at(self, loc: Loc) -> Any:
        """Return the value at a path of keys and indexes in the document.

        Args:
            loc: the path; one of those in ``lines``.
        """
        value = self.data
        for step in loc:
            value = value[step]
        return value

    def existing_path(self, loc: Loc) -> Loc:
        """Return a path without the keys that do not exist in the document.

        Paths in errors of pydantic can contain names of union members, which are no keys of the
        document.

        Args:
            loc: path of keys and indexes, as in an error of pydantic.
        """
        path: Loc = ()
        for step in loc:
            if (*path, step) in self.lines:
                path = (*path, step)
        return path

    def problem(self, loc: Loc, message: str, missing: str = "") -> PackProblem:
        """Create a problem about a value in the document, with file, line and path of the value.

        Args:
            loc: path of the value. It may contain names of union members, which pydantic adds.
            message: description of the problem.
            missing: name of a required key that is missing in the mapping at `loc`; empty if none
                is missing.
        """
        path = self.existing_path(loc)
        reported_path = (*path, missing) if missing else path
        return PackProblem(self.file, self.lines[path], path_text(reported_path), message)

    def problems(self, error: ValidationError, base: Loc = ()) -> Iterator[PackProblem]:
        """Yield the problems that a pydantic error reports, each with its line and path.

        Values in ``refused`` are left out, because ``faults`` already reports them.

        Args:
            error: error from the validation of the value at ``base``.
            base: path of the validated value.
        """
        for details in error.errors(include_url=False, include_input=False):
            loc = (*base, *details["loc"])
            if self.existing_path(loc) in self.refused:
                continue
            message = details["msg"].removeprefix("Value error, ")
            missing = ""
            match details["type"]:
                case "default_factory_not_called":
                    continue  # the error that prevented the call is reported separately
                case "missing":
                    missing, message = str(loc[-1]), "is required but missing"
                case "extra_forbidden":
                    message = "this key is unknown"
                case "union_tag_invalid":
                    context = details["ctx"]
                    message = f"{context['tag']!r} is none of {context['expected_tags']}"
                case "union_tag_not_found":
                    missing, message = "type", "is required but missing"
                case "string_type" if type(self.value_at(self.existing_path(loc))) in _TYPE_NAMES:
                    kind = _TYPE_NAMES[type(self.value_at(self.existing_path(loc)))]
                    message = f'should be text, YAML reads it as {kind}: write it in "quotes"'
            yield self.problem(loc, message, missing)


def path_text(loc: Loc) -> str:
    """Format a path for display, such as ``collections[3].fields[0].name``.

    A key is quoted if it contains characters other than letters, digits, ``-`` and ``_``.

    Args:
        loc: path of keys and indexes in a document.
    """
    text = ""
    for step in loc:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step and all(part.isalnum() for part in step.replace("-", "_").split("_") if part):
            text += f".{step}"
        else:
            text += f'."{step}"'
    return text.removeprefix(".")


def read_document(raw: bytes, file: str) -> Document:
    """Parse the content of one YAML file of a pack.

    Args:
        raw: bytes of the file.
        file: name of the file, as problems and errors state it.

    Returns:
        The document. An ambiguous value is text in the document, and a problem in its ``faults``.
        The caller can therefore check all other values.

    Raises:
        DocumentError: the file is not valid YAML, or it contains something that packs may not
            contain, such as a tag or a duplicate key. The error lists every problem.
    """
    root = _compose(_decode(raw, file), file)
    builder = _Builder(file)
    data = builder.build(root, (), 0)
    if builder.problems:
        raise DocumentError([*builder.problems, *builder.refused.values()])
    refused = builder.refused
    return Document(file, data, builder.lines, frozenset(refused), tuple(refused.values()))


def read_bytes(path: Path, file: str) -> bytes:
    """Return the bytes of a file of a pack.

    Args:
        path: path of the file on the disk.
        file: path of the file in the pack, for the error.

    Raises:
        DocumentError: the path cannot be read, is not a regular file or is larger than 5 MiB.
    """
    try:
        if not path.is_file():
            raise DocumentError.single(file, None, "is not a file")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError.single(file, None, f"cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise DocumentError.single(file, None, f"is larger than {MAX_BYTES >> 20} MiB")
    return raw


class DocumentError(Exception):
    """Raised for a file that cannot be read as a document of a pack.

    Attributes:
        problems: problems of the file.
    """

    def __init__(self, problems: list[PackProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems

    @classmethod
    def single(cls, file: str, line: int | None, message: str) -> DocumentError:
        """Return an error with a single problem.

        Args:
            file: path of the file in the pack.
            line: line of the problem, counted from 1; None if the problem concerns the whole file.
            message: description of the problem.
        """
        return cls([PackProblem(file, line, "", message)])


def _decode(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DocumentError.single(file, line, "is not UTF-8 text: save it as UTF-8") from error


def _compose(text: str, file: str) -> yaml.Node:
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=_TextLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        reason = error.problem or error.context or "cannot be parsed"
        raise DocumentError.single(file, line, f"is not valid YAML: {reason}") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        reason = str(error).splitlines()[0]
        position = getattr(error, "position", None)
        line = None if position is None else text[:position].count("\n") + 1
        raise DocumentError.single(file, line, f"is not valid YAML: {reason}") from error
    except RecursionError as error:  # PyYAML without its C parser
        raise DocumentError.single(file, None, "is nested too deeply") from error
    if root is None:
        raise DocumentError.single(file, None, "is empty")
    return root


class _Builder:
    """Converts parsed YAML nodes to Python values, and records the line of each node."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Loc, int] = {}
        self.problems: list[PackProblem] = []
        self.refused: dict[Loc, PackProblem] = {}
        self._nodes = 0

    def build(self, node: yaml.Node, loc: Loc, depth: int, line: int | None = None) -> Any:
        """Return the Python value of a YAML node, and collect the problems of the node.

        Args:
            node: the parsed node.
            loc: path of the node in the document.
            depth: number of mappings and lists that contain the node.
            line: line to record for the node; None for the line at which the node begins.

        Raises:
            DocumentError: the document has too many nodes or is nested too deeply.
        """
        self.lines[loc] = line or node.start_mark.line + 1
        self._count(node, depth)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return {
                key: self.build(value, (*loc, key), depth + 1, at)
                for key, (at, value) in self._pairs(node, loc, depth).items()
            }
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*loc, at), depth + 1) for at, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, loc)
        return self._refuse_tag(node, loc)

    def _count(self, node: yaml.Node, depth: int) -> None:
        self._nodes += 1
        line = node.start_mark.line + 1
        if self._nodes > MAX_NODES:
            message = f"holds more than {MAX_NODES} values, or its aliases unfold into as many"
            raise DocumentError.single(self.file, line, message)
        if depth > MAX_DEPTH:
            message = f"is nested deeper than {MAX_DEPTH} levels, or an alias contains itself"
            raise DocumentError.single(self.file, line, message)

    def _pairs(
        self, node: yaml.MappingNode, loc: Loc, depth: int
    ) -> dict[str, tuple[int, yaml.Node]]:
        """Return the line and the value node of each key of a mapping: key -> (line, value node).

        Keys from merged mappings (``<<``) are included. The mapping's own keys override merged
        keys.
        """
        merged: dict[str, tuple[int, yaml.Node]] = {}
        own_pairs: dict[str, tuple[int, yaml.Node]] = {}
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if _is_merge_key(key_node):
                merged = {**self._merged(value, loc, depth + 1), **merged}
            elif not _is_text(key_node):
                self._add(line, loc, 'a key should be text: write it in "quotes"')
            elif key_node.value in own_pairs:
                first = own_pairs[key_node.value][0]
                self._add(
                    line, (*loc, key_node.value), f"this key occurs twice, first in line {first}"
                )
            else:
                own_pairs[key_node.value] = (line, value)
        return {**merged, **own_pairs}

    def _merged(self, node: yaml.Node, loc: Loc, depth: int) -> dict[str, tuple[int, yaml.Node]]:
        self._count(node, depth)
        if isinstance(node, yaml.MappingNode):
            return self._pairs(node, loc, depth)
        if isinstance(node, yaml.SequenceNode):
            merged: dict[str, tuple[int, yaml.Node]] = {}
            for item in node.value:  # earlier mappings take precedence (YAML 1.1 merge)
                merged = {**self._merged(item, loc, depth + 1), **merged}
            return merged
        self._add(node.start_mark.line + 1, loc, "only a mapping can be merged with <<")
        return {}

    def _scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        if node.tag != _TEXT_TAG:
            return self._refuse_tag(node, loc)
        if node.style:  # a quoted or block scalar
            return node.value
        try:
            return plain_value(node.value)
        except AmbiguousScalar as error:
            line = self.lines[loc]
            self.refused[loc] = PackProblem(self.file, line, path_text(loc), str(error))
            return node.value

    def _refuse_tag(self, node: yaml.Node, loc: Loc) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self._add(self.lines[loc], loc, f"the tag {tag} is not allowed in a pack")

    def _add(self, line: int, loc: Loc, message: str) -> None:
        self.problems.append(PackProblem(self.file, line, path_text(loc), message))


def _is_merge_key(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == _MERGE_KEY and not node.style


def _is_text(node: yaml.Node) -> bool:
    """Return whether a key of a mapping is text in both YAML 1.1 and YAML 1.2.

    Args:
        node: YAML node of the key.
    """
    if not isinstance(node, yaml.ScalarNode) or node.tag != _TEXT_TAG:
        return False
    try:
        return bool(node.style) or isinstance(plain_value(node.value), str)
    except AmbiguousScalar:
        return False


def drop_faults(adapter: TypeAdapter[_Item], item: object, example: object) -> _Item | None:
    """Return a faulty item without its faulty values, so that later checks can use the rest.

    Args:
        adapter: pydantic type adapter that validates the item.
        item: the item as Python values that JSON can express.
        example: valid item of the same type. Faulty values are removed from the item. Required
            values that are then missing are copied from the example.

    Returns:
        The validated item, or None if it is still faulty after 5 attempts.
    """
    rest = deepcopy(item)
    for _attempt in range(_MOST_TRIES):
        try:
            return adapter.validate_json(json.dumps(rest), strict=True)
        except ValidationError as error:
            for details in error.errors(include_url=False, include_input=False):
                if details["type"] == "missing":
                    _copy_value(rest, details["loc"], example)
                else:
                    _delete_value(rest, details["loc"])
    return None


def _parent(data: object, loc: Loc) -> Any:
    """Return the mapping or list to which the last key or index of a path belongs.

    Keys and indexes of the path that do not exist in `data` are skipped, because pydantic adds
    names of union members to its paths.

    Args:
        data: content of the document, as Python values.
        loc: path of keys and indexes, as in an error of pydantic.
    """
    for step in loc[:-1]:
        if isinstance(data, dict | list) and _has(data, step):
            data = data[step]  # type: ignore[index] # _has checked the key or index
    return data


def _has(data: object, step: str | int) -> bool:
    if isinstance(data, dict):
        return step in data
    return isinstance(data, list) and isinstance(step, int) and step < len(data)


def _delete_value(data: object, loc: Loc) -> None:
    parent = _parent(data, loc)
    if loc and _has(parent, loc[-1]):
        del parent[loc[-1]]


def _copy_value(data: object, loc: Loc, example: object) -> None:
    target, source = _parent(data, loc), _parent(example, loc)
    if isinstance(target, dict) and _has(source, loc[-1]):
        target[loc[-1]] = deepcopy(source[loc[-1]])
