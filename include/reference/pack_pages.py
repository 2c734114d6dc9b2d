"""Generate the pages about the policy pack: an index, and a page with the keys of each file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from include.policy.expectations import AnyExpectation, Expectation
from include.policy.kwargs import Kwargs
from include.policy.loader import SHIPPED
from include.policy.rates import percent_text
from include.policy.rules import Role
from include.reference.docstrings import attributes, summary
from include.reference.markdown import Page, code, render, table
from include.reference.pack_files import (
    PackFile,
    examples,
    inline,
    nested_models,
    owner_of,
    pack_files,
)
from include.reference.value_types import describe
from include.service_container import ROOT

HEADER = ("key", "type", "unit", "default", "allowed values", "meaning", "example")
FOLDER = "policy-pack"


@dataclass(frozen=True)
class Key:
    """A key of a file of the policy pack.

    Attributes:
        path: path of the key, such as ``keep.daily``.
        model: pydantic model that declares the key.
        name: name of the model's field.
        field: the model's field.
        annotation: type annotation of the field, with metadata.
        same_as: path of an earlier key whose value contains the same keys, which are listed only
            there; empty if there is no such key.
    """

    path: str
    model: type[BaseModel]
    name: str
    field: FieldInfo
    annotation: Any
    same_as: str = ""

    def row(self) -> tuple[str, ...]:
        """Return the cells of the key's table row.

        Raises:
            LookupError: the docstring of the model does not describe the key.
        """
        described = attributes(self.model)
        if self.name not in described:
            raise LookupError(f"{self.model.__name__}: the docstring does not describe {self.name}")
        meaning = described[self.name]
        if self.same_as:
            meaning += f" The mapping has the same keys as `{self.same_as}`."
        kind = describe(self.annotation, self.name)
        return (
            code(self.path),
            kind.name,
            kind.unit,
            self._default(),
            ", ".join(kind.allowed),
            meaning,
            self._example(),
        )

    def _default(self) -> str:
        if self.field.is_required():
            return "**required**"
        return code(_default_text(self.field.default))

    def _example(self) -> str:
        own = self.field.examples
        key = self.field.alias or self.name
        if own:
            return code(inline(own[0]))
        for owner in (self.model, owner_of(self.model, self.name)):
            if (owner, key) in examples():
                return code(examples()[owner, key])
        return code(_default_text(self.field.default))


def _default_text(value: Any) -> str:
    if value is None or value is PydanticUndefined or value in ((), {}):
        return ""
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, Fraction):
        return percent_text(value)
    if isinstance(value, Decimal):
        return f"{value}%"
    if isinstance(value, tuple):
        return inline([item if isinstance(item, int) else str(item) for item in value])
    return inline(value if isinstance(value, bool | int | float | str) else str(value))


def keys_of(
    model: type[BaseModel], prefix: str = "", paths_by_model: dict[type, str] | None = None
) -> list[Key]:
    """Return the keys of a model and of its nested models, in the order of declaration.

    If a model occurs more than once, its keys are returned only at its first occurrence.

    Args:
        model: pydantic model of a file or of an object inside the file.
        prefix: path of the model in the file, with a period at the end; empty for the whole file.
        paths_by_model: paths of the models whose keys were already returned; the call adds to it.
    """
    paths_by_model = {} if paths_by_model is None else paths_by_model
    hints = get_type_hints(model, include_extras=True)
    keys: list[Key] = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        nested = [
            (inner, suffix)
            for inner, suffix in nested_models(hints[name])
            if not issubclass(inner, Expectation)
        ]
        earlier_paths = [
            paths_by_model[inner] for inner, _suffix in nested if inner in paths_by_model
        ]
        keys.append(
            Key(path, model, name, field, hints[name], earlier_paths[0] if earlier_paths else "")
        )
        for inner, suffix in nested:
            if inner not in paths_by_model:
                paths_by_model[inner] = f"{path}{suffix}"
                keys += keys_of(inner, f"{path}{suffix}.", paths_by_model)
    return keys


def _tables(file: PackFile) -> Iterator[tuple[str, str]]:
    """Yield headings with Markdown tables that together list all keys of a file.

    The first table contains the keys at the top level and has an empty heading. Each further table
    contains the keys inside one top-level key, whose name is the heading.
    """
    groups: dict[str, list[Key]] = {}
    for key in keys_of(file.model):
        top, dot, _rest = key.path.partition(".")
        groups.setdefault(top.removesuffix("[]") if dot else "", []).append(key)
    for top, group in groups.items():
        yield top, table(HEADER, [key.row() for key in group])


def _content(file: PackFile) -> str:
    """Return a sentence that states what a file contains."""
    text = summary(file.model)
    return f"Each item of the list is {text[0].lower()}{text[1:]}" if file.is_list else text


def _title(page: str) -> str:
    """Return the title of a page, given its path under docs/."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("# ")).removeprefix("# ")


def pack_pages() -> Iterable[Page]:
    """Yield the reference pages of the policy pack."""
    files = pack_files()
    for file in files:
        template = {"datamap/*.yaml": "datamap.md.j2", "quality/*.yaml": "quality.md.j2"}
        tables = list(_tables(file))
        yield render(
            template.get(file.name, "pack_file.md.j2"),
            f"{FOLDER}/{file.page}",
            file=file,
            summary=_content(file),
            tables=tables,
            link=f"../../{file.explanation}",
            link_title=_title(file.explanation) if file.explanation else "",
            **(_expectations() if file.name == "quality/*.yaml" else {}),
            shipped=_shipped_roles() if file.model is Role else "",
        )
    yield render(
        "pack_index.md.j2",
        f"{FOLDER}/index.md",
        files=table(
            ("file", "content", "if a pack does not have the file"),
            (
                (f"[`{file.name}`]({file.page})", _content(file), file.behaviour_if_missing)
                for file in files
            ),
        ),
    )


def _shipped_roles() -> str:
    """Return a Markdown table of the roles in the shipped policy pack."""
    content = yaml.safe_load((SHIPPED / "roles.yaml").read_text(encoding="utf-8"))
    return table(
        ("shipped role", "name", "中文"),
        ((code(role["id"]), role["title"]["en"], role["title"]["zh-CN"]) for role in content),
    )


def _expectations() -> dict[str, str]:
    """Return the Markdown tables about expectations, by their name in the page template.

    The tables list the keys that all expectations have in common, the expectation types, and the
    arguments of each type.
    """
    kinds: list[tuple[str, ...]] = []
    arguments: list[tuple[str, ...]] = []
    for kind in get_args(get_args(AnyExpectation)[0]):
        names = get_args(kind.model_fields["type"].annotation)
        kinds += [(code(name), summary(kind)) for name in names]
        hints = get_type_hints(kind, include_extras=True)
        for model, _suffix in nested_models(hints["kwargs"]):
            title = ", ".join(code(name) for name in names) + _part_of(model)
            own = [key for key in keys_of(model) if key.name != "mostly"]
            arguments += [(title, *key.row()[:-1]) for key in own]
    common = [key.row() for key in keys_of(Expectation) if key.name != "kwargs"]
    mostly = [(code("kwargs.mostly"), *key.row()[1:]) for key in keys_of(Kwargs)]
    return {
        "common": table(HEADER, [*common, *mostly]),
        "kinds": table(("type", "meaning"), kinds),
        "arguments": table(("type", *HEADER[:-1]), _without_repeats(arguments)),
    }


def _part_of(model: type[BaseModel]) -> str:
    if "part" not in model.model_fields:
        return ""
    *others, last = map(code, get_args(model.model_fields["part"].annotation))
    return f" if `part` is {', '.join(others) + ' or ' if others else ''}{last}"


def _without_repeats(rows: list[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    before = ""
    for first, *rest in rows:
        yield ("" if first == before else first, *rest)
        before = first
