"""Describe the files of a policy pack: their pydantic models, and example values of their keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import get_annotations
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel

from include.policy.company import Company
from include.policy.datamap import META_KEY, DatabaseMeta
from include.policy.expectations import Suite
from include.policy.intake import IntakeRule
from include.policy.loader import SHIPPED, WITH_DEFAULT
from include.policy.purposes import Purpose
from include.policy.retention import Disposition, RetentionRule
from include.policy.rules import (
    BackupRules,
    Calendar,
    Control,
    EvidenceRules,
    FindingRules,
    NotificationRules,
    Operations,
    Role,
)
from include.registry import sections, workflows
from include.service_container import ROOT

_EXAMPLE_PACKS = (SHIPPED, ROOT / "examples" / "packs" / "chinook")
_LONGEST_EXAMPLE = 60


@dataclass(frozen=True)
class PackFile:
    """A file of a policy pack.

    Attributes:
        name: name of the file, such as ``backup.yaml``. A ``*`` in it stands for any text.
        model: pydantic model of the file's content, or of each item if the content is a list.
        is_list: whether the content is a list of items.
        behaviour_if_missing: behaviour of ParcelSeal if the pack has no such file.
        explanation: page of docs/ that explains the file; empty if no page explains it.
        location: text that tells readers where in the file the keys are; empty if they are at the
            top level.
    """

    name: str
    model: type[BaseModel]
    is_list: bool = False
    behaviour_if_missing: str = ""
    explanation: str = ""
    location: str = ""

    @property
    def page(self) -> str:
        """File name of the reference page about this file, such as ``backup.md``."""
        return f"{self.name.removesuffix('/*.yaml').removesuffix('.yaml')}.md"


_SHIPPED_IS_USED = "The shipped file is used."
_EXPLAINED = "explanation"
_COMMON = (
    PackFile(
        "datamap/*.yaml",
        DatabaseMeta,
        behaviour_if_missing="A pack without a data map is refused.",
        explanation="reference/data-map.md",
        location=f"`meta.{META_KEY}` of a Dataset",
    ),
    PackFile(
        "company.yaml",
        Company,
        behaviour_if_missing="Reports and exports have no letterhead.",
    ),
    PackFile("backup.yaml", BackupRules, explanation="how-to/restore.md"),
    PackFile("evidence.yaml", EvidenceRules, explanation=f"{_EXPLAINED}/evidence.md"),
    PackFile("controls.yaml", Control, is_list=True, explanation="reference/findings.md"),
    PackFile("calendar.yaml", Calendar),
    PackFile("roles.yaml", Role, is_list=True, explanation="reference/roles.md"),
    PackFile("notices.yaml", NotificationRules, explanation=f"{_EXPLAINED}/notices.md"),
    PackFile(
        "findings.yaml",
        FindingRules,
        behaviour_if_missing="The defaults below are used.",
        explanation="reference/findings.md",
    ),
    PackFile(
        "purposes.yaml",
        Purpose,
        is_list=True,
        behaviour_if_missing="`check_quality` does not compare personal fields with purposes.",
        explanation=f"{_EXPLAINED}/quality.md",
    ),
    PackFile(
        "quality/*.yaml",
        Suite,
        is_list=True,
        behaviour_if_missing="`check_quality` checks no record.",
        explanation=f"{_EXPLAINED}/quality.md",
    ),
    PackFile(
        "intake.yaml",
        IntakeRule,
        is_list=True,
        behaviour_if_missing="`review_intake` does nothing.",
        explanation=f"{_EXPLAINED}/intake.md",
    ),
    PackFile(
        "retention.yaml",
        RetentionRule,
        is_list=True,
        behaviour_if_missing="No record expires.",
        explanation=f"{_EXPLAINED}/retention.md",
    ),
    PackFile(
        "disposition.yaml",
        Disposition,
        behaviour_if_missing="Every key has its default. "
        "No person may approve a plan that exceeds a limit.",
        explanation=f"{_EXPLAINED}/retention.md",
    ),
    PackFile(
        "operations.yaml", Operations, behaviour_if_missing="Workflows run as their code declares."
    ),
)


def pack_files() -> list[PackFile]:
    """Return the files of a policy pack. The files that only one workflow uses come last."""
    common = [
        PackFile(
            file.name,
            file.model,
            file.is_list,
            _SHIPPED_IS_USED if file.name in WITH_DEFAULT else file.behaviour_if_missing,
            file.explanation,
            file.location,
        )
        for file in _COMMON
    ]
    return [*common, *_of_sections()]


def _of_sections() -> Iterator[PackFile]:
    for section in sections():
        readers = [workflow for workflow in workflows() if workflow.rules is section]
        effects = (
            f"`{reader.id}` {'cannot run' if reader.needs_rules else 'does nothing'}."
            for reader in readers
        )
        yield PackFile(
            section.file,
            section.model,
            behaviour_if_missing=" ".join(effects),
            explanation=section.page,
        )


Examples = Mapping[tuple[type, str], str]


@cache
def examples() -> Examples:
    """Return example values for the keys of the policy pack, by model and key.

    The values are read from the shipped policy pack and from the example policy pack.
    """
    examples: dict[tuple[type, str], str] = {}
    for pack in _EXAMPLE_PACKS:
        for file in pack_files():
            for path in sorted(pack.glob(file.name)):
                content = yaml.safe_load(path.read_text(encoding="utf-8"))
                for item in _items(file, content):
                    _collect(file.model, item, examples)
    return examples


def _items(file: PackFile, content: Any) -> Iterator[Any]:
    if file.model is DatabaseMeta:
        datasets = content.get("dataset", [content])
        yield from (
            dataset["meta"][META_KEY] for dataset in datasets if META_KEY in dataset.get("meta", {})
        )
    elif isinstance(content, list):
        yield from content
    else:
        yield content


def _collect(model: type[BaseModel], content: Any, examples: dict[tuple[type, str], str]) -> None:
    if not isinstance(content, dict):
        return
    hints = get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key not in content:
            continue
        nested = dict(nested_models(hints[name]))
        if not nested and (text := inline(content[key])):
            examples.setdefault((model, key), text)
            examples.setdefault((owner_of(model, name), key), text)
        for inner in nested:
            for value in _values(content[key]):
                _collect(inner, value, examples)


def _values(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        return [content, *(value for value in content.values() if isinstance(value, dict))]
    return []


def owner_of(model: type[BaseModel], name: str) -> type:
    """Return the class that declares a field of a model."""
    return next(class_ for class_ in reversed(model.__mro__) if name in get_annotations(class_))


def inline(value: Any) -> str:
    """Return a value as YAML in one line, or an empty text if the value is too long.

    A list that is too long is shortened to its first item and ``...``.
    """
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False
    )
    text = text.removesuffix("...\n").strip()
    if len(text) > _LONGEST_EXAMPLE and isinstance(value, list) and len(value) > 1:
        shorter = inline(value[:1])
        return f"{shorter[:-1]}, ...]" if shorter else ""
    return text if len(text) <= _LONGEST_EXAMPLE and "\n" not in text else ""


def nested_models(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """Yield the pydantic models in the type annotation of a key, each with a path suffix.

    The keys of such a model have a path that begins with the path of the key, followed by the
    suffix. The suffix is empty if the value of the key is the model itself. It ends in ``[]`` for
    the items of a list, and in ``.<name>`` for the values of a mapping.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, suffix
    elif origin is tuple:
        yield from nested_models(arguments[0], f"{suffix}[]")
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from nested_models(arguments[1], f"{suffix}.<name>")
    else:
        for argument in arguments:
            if not isinstance(argument, str | int):
                yield from nested_models(argument, suffix)
