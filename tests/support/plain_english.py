"""Lists names and sentences that a new reader is likely to misunderstand.

``python -m tests.support.plain_english include/backup docs`` lists them for some folders.
tests/test_plain_english.py keeps each folder below its limit.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_WORDS = 32
MOST_CHARACTERS = 160


@dataclass(frozen=True)
class Rule:
    """A pattern of language that costs readers time.

    Attributes:
        name: name of the pattern.
        pattern: regular expression that matches a sentence, or a whole name for a rule of names.
        example: a phrase that breaks the rule, and a better phrase.
    """

    name: str
    pattern: re.Pattern[str]
    example: str


@dataclass(frozen=True)
class Place:
    """A sentence or name that breaks a rule."""

    path: Path
    line: int
    rule: str
    text: str
    example: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}\n    {self.example}"


def _rule(name: str, pattern: str, example: str) -> Rule:
    return Rule(name, re.compile(pattern), example)


_VERB = r"(?:is|are|was|were|has|have|had|does|do|did|may|can|could|says?|goes|stays?|keeps?)"
SENTENCES = (
    _rule(
        "a pronoun is the subject",
        rf"\b(?:[Ww]hat|[Ww]ho(?:ever)?|[Ww]hatever|[Nn]obody|[Ss]omebody|[Ee]verybody)\b"
        rf"[^.?!]{{0,60}}\b{_VERB}\b",
        "not 'What has expired is deleted', but 'The run deletes expired records'",
    ),
    _rule(
        "'one' is a noun",
        r"\b(?:this|that|each|every|another|no|any|older|newer|newest|first|last|the) ones?\b(?!-)",
        "not 'the newest one', but 'the newest restore point'",
    ),
    _rule(
        "a passive without an actor",
        r"\b(?:is|are|was|were) (?:told|said|asked|looked at|looked for|let in|led|mended)\b",
        "not 'the owner is told', but 'the run notifies the owner'",
    ),
    _rule(
        "a noun is negated",
        r"\b(?:is|are|was|were) (?:no|none)\b",
        "not 'there is no key', but 'the key is missing'",
    ),
    _rule(
        "a thing stands or lies somewhere",
        r"\b(?:stands?|stood|lies|lay) (?:in|at|there|under|beside|by|still)\b|\bgoes with\b",
        "not 'the key lies in the store', but 'the store contains the key'",
    ),
    _rule(
        "a literary relative clause",
        r"\b(?:of|by) (?:whom|which)\b",
        "not 'records of whom a run knows', but 'records that match the run'",
    ),
    _rule(
        "a literary adverb",
        r"\b(?:anew|thereof|wherein|hereby|whereof|henceforth)\b|\bof (?:then|now|that day)\b",
        "not 'asks anew', but 'asks again'",
    ),
)
NAMES = (
    _rule(
        "a name without meaning",
        r"(?:ones?|found|told|seen|place|made|asked|wanted|given|known|both|either|none|it|what|who)$",
        "not 'for one in partners', but 'for partner in partners'",
    ),
)
_LONG = f"not one sentence of more than {MOST_WORDS} words, but two"
_WIDE = "break the line at 120 characters"


def sentences(text: str) -> Iterator[str]:
    """Yield the parts of a text between full stops, colons and semicolons."""
    for part in re.split(r"(?<=[.!?:;])\s+", text.replace("\n", " ")):
        if part.strip():
            yield part.strip()


def broken_rules(text: str) -> Iterator[Rule]:
    """Yield the rules that a docstring, comment or paragraph breaks."""
    for rule in SENTENCES:
        if rule.pattern.search(text):
            yield rule
    if any(len(re.findall(r"[A-Za-z][A-Za-z'-]*", part)) > MOST_WORDS for part in sentences(text)):
        yield _rule("a long sentence", "", _LONG)


def places(path: Path) -> Iterator[Place]:
    """Yield the sentences and names of a Python or Markdown file that break a rule, in no order."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python_places(path, text)
    else:
        yield from _markdown_places(path, text)


def _python_places(path: Path, text: str) -> Iterator[Place]:
    for node in ast.walk(ast.parse(text)):
        line = getattr(node, "lineno", 1)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            for rule in broken_rules(docstring):
                yield Place(path, line, rule.name, docstring.splitlines()[0], rule.example)
        for name in _bound_names(node):
            for rule in NAMES:
                if rule.pattern.match(name):
                    line = getattr(node, "lineno", None) or getattr(node, "target", node).lineno
                    yield Place(path, line, rule.name, name, rule.example)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            for rule in broken_rules(token.string):
                yield Place(path, token.start[0], rule.name, token.string, rule.example)


def _bound_names(node: ast.AST) -> list[str]:
    """Return the names that a definition, field, loop, assignment or parameter binds."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.ExceptHandler):
        return [node.name] if node.name else []
    if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension | ast.NamedExpr | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.With | ast.AsyncWith):
        targets = [item.optional_vars for item in node.items if item.optional_vars]
    elif isinstance(node, ast.arg):
        return [node.arg]
    return [
        name.id
        for target in targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    ]


def _markdown_places(path: Path, text: str) -> Iterator[Place]:
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code:
            for rule in broken_rules(line):
                yield Place(path, number, rule.name, line.strip(), rule.example)
            if len(line) > MOST_CHARACTERS and not line.startswith("|"):
                yield Place(path, number, "a long line", line[:60], _WIDE)


def files(root: Path) -> list[Path]:
    """Return the Python files and the English Markdown files of a file or folder."""
    paths = [root] if root.is_file() else sorted([*root.rglob("*.py"), *root.rglob("*.md")])
    return [path for path in paths if "zh-CN" not in path.name]


def main(arguments: list[str] | None = None) -> int:
    """Print the sentences and names that break a rule, and their number per 1,000 lines."""
    roots = [Path(argument) for argument in arguments or sys.argv[1:]]
    paths = [path for root in roots for path in files(root)]
    count = lines = 0
    for path in paths:
        lines += len(path.read_text(encoding="utf-8").splitlines())
        for place in sorted(places(path), key=lambda place: place.line):
            sys.stdout.write(f"{place}\n")
            count += 1
    rate = 1000 * count / max(lines, 1)
    sys.stdout.write(f"{count} places in {lines} lines, {rate:.1f} per 1,000\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
