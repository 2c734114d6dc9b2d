"""Read YAML files safely, with the line of every key and item.

YAML 1.1 and YAML 1.2 read some plain values differently: ``010`` is 8 or 10, ``yes`` is true or
text, ``0o10`` is text or 8. A pack decides which records are deleted, so such a value is refused.
``true``, ``false``, ``null``, ``~`` and the numbers of JSON keep their meaning. All other values
are text, also ``12:30`` and ``2026-11-25`` (YAML 1.2.2, 10.3.2, core schema).

Also refused, beside YAML's own errors: duplicate keys, keys that are not text, tags, more than one
document, files that are not UTF-8, too large or nested too deep, and aliases that expand to more
nodes than a pack can need. The result is exactly what JSON can express.
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
# Numbers of YAML 1.1 or 1.2. Sexagesimal numbers are left out: 12:30 is a time for its writer.
_NUMBER = re.compile(
    r"[-+]?(?:0b[01_]+|0x[0-9A-Fa-f_]+|0o[0-7]+|\.(?:inf|Inf|INF)"
    r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)


class AmbiguousScalar(ValueError):
    """A value that YAML readers interpret differently; the message says what to write instead."""


def plain_value(text: str) -> str | int | float | bool | None:
    """Return the value of a plain scalar.

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
    if meaning := _boolean_of_1_1(text):
        raise AmbiguousScalar(_choice(text, [meaning]))
    if not _NUMBER.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise AmbiguousScalar(f"a number has at most {MAX_DIGITS} digits")
    if _INTEGER.fullmatch(text) and text != "-0":
        return int(text)
    if _FLOAT.fullmatch(text):
        return _exact(text)
    raise AmbiguousScalar(_choice(text, list(dict.fromkeys(_readings(text)))))


def _boolean_of_1_1(text: str) -> str | None:
    forms = (text.lower(), text.upper(), text.capitalize())
    return _BOOLEANS_OF_1_1.get(text.lower()) if text in forms else None


def _exact(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise AmbiguousScalar(
            f'{text} has more digits than a number can store: write it as text, "{text}"'
        )
    return value


def _readings(text: str) -> Iterator[str]:
    """Yield the numbers that YAML 1.1 and 1.2 read."""
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
_MOST_TRIES = 5  # to free an item of its faults; each may bring out more

_Item = TypeVar("_Item")

Loc = tuple[str | int, ...]

# The C parser, where PyYAML was built with it, is about eight times faster.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _TextLoader(_Base):  # type: ignore[misc] # PyYAML is untyped
    """Compose each plain scalar as text, since PyYAML's own rules are those of YAML 1.1."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute


_TAG = "tag:yaml.org,2002:"
_TEXT_TAG = _TAG + "str"
_MERGE_KEY = "<<"
_WORDS = {bool: "a truth value", int: "a number", float: "a number", type(None): "nothing (null)"}


@dataclass(frozen=True)
class Document:
    """One file of a pack.

    Attributes:
        file: path inside the pack.
        data: content in plain Python: dict, list, str, int, float, bool, None.
        lines: the 1-based line of every key and item, by path; the root is ``()``.
        refused: paths of values that were refused; their text stands in ``data``.
        faults: problems of the refused values.
    """

    file: str
    data: Any
    lines: dict[Loc, int]
    refused: frozenset[Loc] = frozenset()
    faults: tuple[PackProblem, ...] = ()

    def at(self, loc: Loc) -> Any:
        """The value at a path that is in ``lines``."""
        value = self.data
        for step in loc:
            value = value[step]
        return value

    def known(self, loc: Loc) -> Loc:
        """The part of a path that the document has; steps it does not have are left out.

        Validators put names of their own (union members) between the document's steps.
        """
        found: Loc = ()
        for step in loc:
            if (*found, step) in self.lines:
                found = (*found, step)
        return found

    def problem(self, loc: Loc, message: str, missing: str = "") -> PackProblem:
        """A problem at a path; ``missing`` names a key that should be there."""
        known = self.known(loc)
        shown = (*known, missing) if missing else known
        return PackProblem(self.file, self.lines[known], path_text(shown), message)

    def problems(self, error: ValidationError, base: Loc = ()) -> Iterator[PackProblem]:
        """Yield the problems of a pydantic error, each with its line and path.

        A refused value is not reported a second time.

        Args:
            error: from validating the part of the document that is at ``base``.
            base: path of that part.
        """
        for one in error.errors(include_url=False, include_input=False):
            loc = (*base, *one["loc"])
            if self.known(loc) in self.refused:
                continue
            message = one["msg"].removeprefix("Value error, ")
            missing = ""
            match one["type"]:
                case "default_factory_not_called":
                    continue  # what kept it from being called is said already
                case "missing":
                    missing, message = str(loc[-1]), "is required and missing"
                case "extra_forbidden":
                    message = "this key is not known here"
                case "union_tag_invalid":
                    message = f"{one['ctx']['tag']!r} is none of {one['ctx']['expected_tags']}"
                case "union_tag_not_found":
                    missing, message = "type", "is required and missing"
                case "string_type" if type(self.at(self.known(loc))) in _WORDS:
                    word = _WORDS[type(self.at(self.known(loc)))]
                    message = f'should be text, YAML reads it as {word}: write it in "quotes"'
            yield self.problem(loc, message, missing)


def path_text(loc: Loc) -> str:
    """``collections[3].fields[0].name``; steps that are not plain words stand in quotes."""
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
    """Read the content of one YAML file.

    Args:
        raw: its bytes.
        file: its name in problems.

    Returns:
        The document. Values that were refused are its ``faults``, so that the problems of all
        other values can be found too.

    Raises:
        DocumentError: the structure is faulty; has every problem.
    """
    root = _compose(_decode(raw, file), file)
    builder = _Builder(file)
    data = builder.build(root, (), 0)
    if builder.problems:
        raise DocumentError([*builder.problems, *builder.refused.values()])
    refused = builder.refused
    return Document(file, data, builder.lines, frozenset(refused), tuple(refused.values()))


def read_bytes(path: Path, file: str) -> bytes:
    """The bytes of a file of a pack.

    Raises:
        DocumentError: it cannot be read, is no plain file or larger than 5 MiB.
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
    """A file could not be read as a document; carries the problems."""

    def __init__(self, problems: list[PackProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems

    @classmethod
    def single(cls, file: str, line: int | None, message: str) -> DocumentError:
        """An error of one problem."""
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
        raise DocumentError.single(file, None, "is nested too deep") from error
    if root is None:
        raise DocumentError.single(file, None, "is empty")
    return root


class _Builder:
    """Turns composed nodes into plain data and remembers lines."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Loc, int] = {}
        self.problems: list[PackProblem] = []
        self.refused: dict[Loc, PackProblem] = {}
        self._nodes = 0

    def build(self, node: yaml.Node, loc: Loc, depth: int, line: int | None = None) -> Any:
        """The data of a node; problems are collected, size and depth end the reading."""
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
        """Key -> (line, value node), merge keys (``<<``) resolved; own keys win."""
        merged: dict[str, tuple[int, yaml.Node]] = {}
        own: dict[str, tuple[int, yaml.Node]] = {}
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if _is_merge_key(key_node):
                merged = {**self._merged(value, loc, depth + 1), **merged}
            elif not _is_text(key_node):
                self._add(line, loc, 'a key should be text: write it in "quotes"')
            elif key_node.value in own:
                first = own[key_node.value][0]
                self._add(
                    line, (*loc, key_node.value), f"this key stands twice, first in line {first}"
                )
            else:
                own[key_node.value] = (line, value)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, loc: Loc, depth: int) -> dict[str, tuple[int, yaml.Node]]:
        self._count(node, depth)
        if isinstance(node, yaml.MappingNode):
            return self._pairs(node, loc, depth)
        if isinstance(node, yaml.SequenceNode):
            merged: dict[str, tuple[int, yaml.Node]] = {}
            for item in node.value:  # the earlier of two mappings wins
                merged = {**self._merged(item, loc, depth + 1), **merged}
            return merged
        self._add(node.start_mark.line + 1, loc, "only a mapping can be merged with <<")
        return {}

    def _scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        if node.tag != _TEXT_TAG:
            return self._refuse_tag(node, loc)
        if node.style:  # in quotes, or a block
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
    """Return whether a key is text for every reader of YAML."""
    if not isinstance(node, yaml.ScalarNode) or node.tag != _TEXT_TAG:
        return False
    try:
        return bool(node.style) or isinstance(plain_value(node.value), str)
    except AmbiguousScalar:
        return False


def without_faults(form: TypeAdapter[_Item], item: object, example: object) -> _Item | None:
    """An item without what is wrong in it, for checks that look at the rest of it.

    Args:
        form: of the item.
        item: as it was read.
        example: a sound one, from which required values come where they are missing or faulty.

    Returns:
        None where nothing sound is left.
    """
    rest = deepcopy(item)
    for _try in range(_MOST_TRIES):
        try:
            return form.validate_json(json.dumps(rest), strict=True)
        except ValidationError as error:
            for one in error.errors(include_url=False, include_input=False):
                if one["type"] == "missing":
                    _put(rest, one["loc"], example)
                else:
                    _drop(rest, one["loc"])
    return None


def _holder(data: object, loc: Loc) -> Any:
    """What holds the last step of a path; steps that only pydantic knows are passed over."""
    for step in loc[:-1]:
        if isinstance(data, dict | list) and _has(data, step):
            data = data[step]  # type: ignore[index] # it has it
    return data


def _has(data: object, step: str | int) -> bool:
    if isinstance(data, dict):
        return step in data
    return isinstance(data, list) and isinstance(step, int) and step < len(data)


def _drop(data: object, loc: Loc) -> None:
    holder = _holder(data, loc)
    if loc and _has(holder, loc[-1]):
        del holder[loc[-1]]


def _put(data: object, loc: Loc, example: object) -> None:
    holder, donor = _holder(data, loc), _holder(example, loc)
    if isinstance(holder, dict) and _has(donor, loc[-1]):
        holder[loc[-1]] = deepcopy(donor[loc[-1]])
