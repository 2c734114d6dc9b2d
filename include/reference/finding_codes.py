"""Collect the codes of findings from the source code, each with outcome, message and action."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from include.service_container import ROOT

_MAY_REPORT = re.compile(r'\b_\(|missing_record|f"[^"\n]*\.missing"')
_CODE = re.compile(r"[a-z_]+(\.[a-z_]+)+")
_OUTCOMES = {
    "fail": ("fail",),
    "failure_finding": ("fail",),
    "_failure": ("fail",),
    "warn": ("attention",),
    "attention_finding": ("attention",),
    "_attention": ("attention",),
}
_REPORTING = frozenset({*_OUTCOMES, "find", "Finding", "odd"})
"""Functions that report a finding, with its code as first argument or as `code`."""

_POSITIONS = {"find": 2, "fail": 1, "warn": 1}
"""Position of the message, which the action follows."""
_CATEGORIES = ("user.", "system.")
"""Data categories, which look like codes."""

Names = Mapping[str, ast.expr]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class FindingCode:
    """The code of a finding, such as ``backup.store.<code>``, and the texts of the finding.

    Attributes:
        code: stable identifier. Angle brackets enclose a part that depends on the run.
        package: package of include/ that reports the finding.
        outcomes: ``fail``, ``attention`` or both.
        message: English message with its fields; empty if the source code has no message for the
            code, or several.
        action: English text of the action for the reader; empty if the source code has no action
            for the code, or several.
    """

    code: str
    package: str
    outcomes: tuple[str, ...] = ()
    message: str = ""
    action: str = ""


@cache
def finding_codes(root: Path = ROOT) -> list[FindingCode]:
    """Return the codes of all findings, sorted by package and code.

    Args:
        root: folder of the repository.
    """
    folder = root / "include"
    texts = [
        (path.relative_to(root).with_suffix("").parts, path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
        if path.relative_to(folder).parts[0] != "reference"
    ]
    trees = {parts: ast.parse(text) for parts, text in texts if _MAY_REPORT.search(text)}
    constants = {
        (".".join(parts), name): value
        for parts, tree in trees.items()
        for name, value in _assignments(tree.body).items()
    }
    wrappers = {
        name: wrapper
        for tree in trees.values()
        for name, wrapper in _wrappers(tree, _imported(tree, constants))
    }
    by_code: dict[tuple[str, str], FindingCode] = {}
    for parts, tree in trees.items():
        package = parts[1]
        for finding_code in _Module(tree, package, wrappers, _imported(tree, constants)).codes():
            earlier = by_code.get((package, finding_code.code))
            by_code[package, finding_code.code] = (
                _merged(earlier, finding_code) if earlier else finding_code
            )
    # a code such as ``training.yaml`` is the name of a file of the policy pack
    return [by_code[key] for key in sorted(by_code) if not key[1].endswith(".yaml")]


def _merged(first: FindingCode, second: FindingCode) -> FindingCode:
    return replace(
        first,
        outcomes=tuple(dict.fromkeys([*first.outcomes, *second.outcomes])),
        message=first.message or second.message,
        action=first.action or second.action,
    )


@dataclass(frozen=True)
class _Wrapper:
    """A function that reports a finding, with the code of the finding as its argument ``code``.

    Attributes:
        position: position of the argument ``code`` in a call.
        outcomes: outcomes of the finding.
        messages: message and action of the finding.
    """

    position: int
    outcomes: tuple[str, ...]
    messages: tuple[str, ...]


def _imported(tree: ast.Module, constants: Mapping[tuple[str, str], ast.expr]) -> Names:
    """Return the constants that a module imports from other modules of the project.

    Args:
        tree: syntax tree of the module.
        constants: (name of a module, name of a constant in it) -> value.

    Returns:
        Name in the importing module -> value of the constant.
    """
    return {
        alias.asname or alias.name: constants[node.module, alias.name]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
        if (node.module, alias.name) in constants
    }


def _wrappers(tree: ast.Module, imported: Names) -> Iterator[tuple[str, _Wrapper]]:
    module_names = {**imported, **_assignments(tree.body)}
    for function in _functions(tree):
        parameters = [parameter.arg for parameter in function.args.args]
        if "code" not in parameters:
            continue
        nodes = list(ast.walk(function))
        names = {**module_names, **_assignments(nodes)}
        for call in (node for node in nodes if isinstance(node, ast.Call)):
            code = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
            code = code or (call.args[0] if call.args else None)
            if not isinstance(code, ast.Name) or code.id != "code":
                continue
            if messages := _messages(_arguments(call), names):
                outcomes = _OUTCOMES.get(_name(call.func), ())
                yield function.name, _Wrapper(parameters.index("code"), outcomes, messages)
                break


class _Module:
    """Collects the codes of the findings that one module of include/ reports.

    Args:
        tree: syntax tree of the module.
        package: package of include/ that contains the module.
        wrappers: functions that report a finding, by name.
        imported: constants that the module imports, by name.
    """

    def __init__(
        self,
        tree: ast.Module,
        package: str,
        wrappers: Mapping[str, _Wrapper],
        imported: Names,
    ) -> None:
        self._package = package
        self._nodes = list(ast.walk(tree))
        self._wrappers = wrappers
        own = _assignments(node for statement in tree.body for node in ast.walk(statement))
        self._constants = {**imported, **own}

    def codes(self) -> Iterator[FindingCode]:
        """Yield the codes of the findings that the module in ``tree`` reports."""
        outcomes = self._outcomes_of_variables()
        for finding_code in self._found():
            yield replace(
                finding_code, outcomes=finding_code.outcomes or outcomes.get(finding_code.code, ())
            )

    def _outcomes_of_variables(self) -> dict[str, tuple[str, ...]]:
        """Return the outcomes of findings whose code is the value of a variable `code`.

        Returns:
            Code of a finding -> outcomes, for all codes that occur in a function that reports the
            value of its variable `code`.
        """
        outcomes: dict[str, tuple[str, ...]] = {}
        for function in self._nodes:
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            nodes = list(ast.walk(function))
            for call in (node for node in nodes if isinstance(node, ast.Call)):
                code = [
                    *call.args[:1],
                    *(keyword.value for keyword in call.keywords if keyword.arg == "code"),
                ]
                reported = _OUTCOMES.get(_name(call.func))
                if reported and any(
                    isinstance(argument, ast.Name) and argument.id == "code" for argument in code
                ):
                    expressions = (node for node in nodes if isinstance(node, ast.expr))
                    texts = [text for node in expressions for text in _codes(node, {})]
                    outcomes |= dict.fromkeys(texts, reported)
        return outcomes

    def _found(self) -> Iterator[FindingCode]:
        yield from self._of_tables(self._constants)
        for function in self._nodes:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                nodes = list(ast.walk(function))
                names = {**self._constants, **_assignments(nodes)}
                for node in nodes:
                    if isinstance(node, ast.Call):
                        yield from self._of_call(node, names)
                yield from self._of_blocks(nodes, names)

    def _of_call(self, call: ast.Call, names: Names) -> Iterator[FindingCode]:
        function = _name(call.func)
        arguments = _arguments(call)
        if (wrapper := self._wrappers.get(function)) and len(call.args) > wrapper.position:
            for text in _codes(call.args[wrapper.position], names):
                yield self._code(text, wrapper.outcomes, wrapper.messages)
            return
        candidates = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
        candidates += call.args[:1] if function in _REPORTING else call.args
        codes = [text for candidate in candidates for text in _codes(candidate, names)]
        if not codes:
            return
        messages = _messages_of_call(call, names)
        if function in _REPORTING or any(messages):
            outcomes = _OUTCOMES.get(function) or _outcomes(arguments, names)
            yield from (self._code(text, outcomes, messages) for text in codes)

    def _of_tables(self, names: Names) -> Iterator[FindingCode]:
        """Yield the finding codes that are keys of dictionaries whose values are messages.

        Args:
            names: values of the constants that the module in ``tree`` can use, by name.
        """
        for node in self._nodes:
            pairs: list[tuple[ast.expr | None, ast.expr]] = []
            if isinstance(node, ast.Dict):
                pairs = list(zip(node.keys, node.values, strict=True))
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                pairs = [(node.targets[0].slice, node.value)]
            for key, value in pairs:
                codes = list(_codes(key, names)) if isinstance(key, ast.Constant) else []
                if codes:
                    inner = _arguments(value) if isinstance(value, ast.Call) else []
                    if messages := _messages([value, *inner], names):
                        outcomes = _outcomes(inner, names)
                        yield from (self._code(text, outcomes, messages) for text in codes)

    def _of_blocks(self, nodes: Sequence[ast.AST], names: Names) -> Iterator[FindingCode]:
        """Yield the finding codes that a block of statements assigns to the variable `code`.

        Each code gets the messages that are assigned to variables in the same block.

        Args:
            nodes: statements of the block.
            names: values of the constants that the module can use, by name.
        """
        for node in nodes:
            for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
                if not isinstance(block, list):
                    continue
                own = _assignments(
                    statement for statement in block if isinstance(statement, ast.Assign)
                )
                if "code" in own and (messages := _messages(list(own.values()), names)):
                    for text in _codes(own["code"], {}):
                        yield self._code(text, (), messages)

    def _code(self, text: str, outcomes: tuple[str, ...], messages: Sequence[str]) -> FindingCode:
        message, action = [*messages, "", ""][:2]
        return FindingCode(text, self._package, outcomes, message, action)


def _functions(tree: ast.Module) -> list[Function]:
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _messages_of_call(call: ast.Call, names: Names) -> tuple[str, ...]:
    """Return the message and the action that a call passes to a function that reports a finding.

    A message or action is empty if the source code does not contain it as a single text.

    Args:
        call: syntax tree of the call.
        names: values of the constants and variables that the call can use, by name.
    """
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    first = _POSITIONS.get(_name(call.func))
    if first is None and not {"message", "action"} & keywords.keys():
        return _messages(_arguments(call), names)
    parts = [keywords.get("message"), keywords.get("action")]
    if first is not None:
        positional = [*call.args[first : first + 2], None, None]
        parts = [part or positional[at] for at, part in enumerate(parts)]
    return tuple(_message(part, names) if part is not None else "" for part in parts)


def _messages(arguments: Sequence[ast.expr], names: Names) -> tuple[str, ...]:
    return tuple(text for argument in arguments if (text := _message(argument, names)))


def _codes(node: ast.expr, names: Names) -> Iterator[str]:
    """Yield the finding codes that can be the value of an expression.

    Args:
        node: syntax tree of the expression.
        names: values of the constants and variables that the expression can use, by name.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if _CODE.fullmatch(node.value) and not node.value.startswith(_CATEGORIES):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [
            str(part.value) if isinstance(part, ast.Constant) else f"<{_field(part)}>"
            for part in node.values
        ]
        if "." in "".join(parts) and " " not in "".join(parts):
            yield "".join(parts)
    elif isinstance(node, ast.IfExp):
        yield from _codes(node.body, names)
        yield from _codes(node.orelse, names)
    elif isinstance(node, ast.Subscript) and isinstance(table := _value(node, names), ast.Dict):
        for value in table.values:
            yield from _codes(value, names)
    elif isinstance(node, ast.Name) and node.id in names and names[node.id] is not node:
        yield from _codes(names[node.id], {})


def _value(node: ast.Subscript, names: Names) -> ast.expr | None:
    return names.get(node.value.id) if isinstance(node.value, ast.Name) else None


def _field(part: ast.expr) -> str:
    """Return a readable name for a field of an f-string, such as ``step`` for ``{step.name}``."""
    text = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
    words = [word for word in re.findall(r"[a-z_]+", text) if word not in {"name", "value"}]
    return words[-1].strip("_") if words else "name"


def _message(node: ast.expr, names: Names) -> str:
    """Return the English text of a message expression, or "" for an expression of another type.

    Args:
        node: syntax tree of the expression.
        names: values of the constants and variables that the expression can use, by name.
    """
    if isinstance(node, ast.Name) and node.id in names:
        return _message(names[node.id], {})
    if isinstance(node, ast.IfExp):
        return _message(node.body, names) or _message(node.orelse, names)
    if isinstance(node, ast.Call) and _name(node.func) == "_" and node.args:
        text = node.args[0]
        return text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
    return ""


def _outcomes(arguments: Sequence[ast.expr], names: Names) -> tuple[str, ...]:
    severities: list[str] = []
    for argument in arguments:
        node = names.get(argument.id, argument) if isinstance(argument, ast.Name) else argument
        text = ast.unparse(node)
        severities += [
            word.lower() for word in re.findall(r"(?:Outcome\.|\b_)(FAIL|ATTENTION)\b", text)
        ]
    return tuple(dict.fromkeys(severities))


def _assignments(nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """Return the assignments to variables: name -> assigned value.

    A name that is assigned more than once is left out.

    Args:
        nodes: syntax trees of statements. Only assignments among the nodes themselves are returned,
            not those inside them.
    """
    values: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(node.value)
    return {name: assigned[0] for name, assigned in values.items() if len(assigned) == 1}


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
