"""The translation catalogue is complete, and its check detects problems."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import write_po

from include.reports.catalog import FOLDERS, ROOT, extract, fields, po_path, problems, update
from include.reports.i18n import LOCALES

PACKAGES = sorted(
    f"{folder}/{path.name}"
    for folder in FOLDERS
    for path in (ROOT / folder).iterdir()
    if (path.is_dir() and path.name != "__pycache__") or path.suffix == ".py"
)


@pytest.fixture(scope="module")
def template() -> Catalog:
    """Return all translatable messages of the code."""
    return extract()


def test_every_message_is_in_a_package_whose_translations_are_tested(template: Catalog):
    """The test of Chinese translations checks only the packages in PACKAGES."""
    used = {
        "/".join(Path(file).parts[:2]) for message in template for file, _line in message.locations
    }
    assert used <= {*PACKAGES}


@pytest.mark.parametrize("package", [*PACKAGES, "catalogue"])
def test_every_message_has_a_chinese_translation(package: str, template: Catalog):
    """Run ``python -m include.reports.catalog``, then add the missing translations."""
    left = [
        str(problem)
        for locale in LOCALES
        if locale != "en"
        for problem in problems(locale, template)
        if any(f"{file}/".startswith(f"{package}/") for file in problem.files or ("catalogue",))
    ]
    assert left == []


def _calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_translation_call_has_literal_text_and_a_value_for_each_placeholder(folder: str):
    """A text that is built at run time has no entry in the catalogue."""
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for call in _calls(path):
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            text = call.args[0] if call.args else None
            if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
                wrong.append(f"{where}: not a literal string")
                continue
            arguments = {keyword.arg for keyword in call.keywords}
            if None not in arguments and arguments != {name for name, _kind in fields(text.value)}:
                wrong.append(
                    f"{where}: fields of {text.value!r} are not {sorted(map(str, arguments))}"
                )
    assert wrong == []


def _catalogue(tmp_path: Path, entries: dict[str, str], fuzzy: bool = False) -> Path:
    catalogue = Catalog(locale="zh_CN", fuzzy=False)
    for text, translation in entries.items():
        catalogue.add(text, translation, flags=["fuzzy"] if fuzzy else [])
    path = tmp_path / "messages.po"
    with path.open("wb") as stream:
        write_po(stream, catalogue)
    return path


def _template(*texts: str) -> Catalog:
    template = Catalog()
    for text in texts:
        template.add(text, locations=[("include/x.py", 1)])
    return template


@pytest.mark.parametrize(
    ("entries", "fuzzy", "reason"),
    [
        ({"{n} rows": "{n} 行"}, False, None),
        ({}, False, "not translated"),
        ({"{n} rows": ""}, False, "not translated"),
        ({"{n} rows": "{n} 行"}, True, "marked fuzzy"),
        ({"{n} rows": "{m} 行"}, False, "other fields"),
        ({"{n} rows": "{n:bytes} 行"}, False, "other fields"),
        ({"{n} rows": "{n} 行", "gone": "旧"}, False, "obsolete"),
    ],
)
def test_catalog_problems_contain_reason_for_each_kind_of_faulty_translation(
    tmp_path: Path, entries: dict[str, str], fuzzy: bool, reason: str | None
):
    """A faulty entry is reported with its reason, and a correct entry is not reported."""
    path = _catalogue(tmp_path, entries, fuzzy)
    reported = problems("zh_CN", _template("{n} rows"), path)
    assert [problem.reason.partition(" in ")[0] for problem in reported] == (
        [reason] if reason else []
    )


def test_catalog_problems_include_translation_with_unknown_number_format(tmp_path: Path):
    """The translator would show ``{n:bits}`` as a plain number."""
    path = _catalogue(tmp_path, {"{n:bits}": "{n:bits}"})
    (problem,) = problems("zh_CN", _template("{n:bits}"), path)
    assert "unknown format" in problem.reason


def test_update_of_catalogue_keeps_translations_and_drops_obsolete_entries(tmp_path: Path):
    """A second update does not change the file."""
    path = _catalogue(tmp_path, {"{n} rows": "{n} 行", "gone": "旧"})
    template = _template("{n} rows", "{n} row")
    update("zh_CN", template, path)
    text = path.read_text(encoding="utf-8")
    assert "{n} 行" in text
    assert "旧" not in text
    assert [str(problem.text) for problem in problems("zh_CN", template, path)] == ["{n} row"]
    update("zh_CN", template, path)
    assert path.read_text(encoding="utf-8") == text


def test_extract_returns_messages_of_python_files_and_templates(tmp_path: Path):
    """Messages are collected from Python files and templates in every folder."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "x.py").write_text('_("from a workflow " "in two parts")\n')
    (tmp_path / "include" / "templates").mkdir(parents=True)
    (tmp_path / "include" / "templates" / "x.html.j2").write_text('{{ _("from a template") }}')
    assert {m.id for m in extract(tmp_path) if m.id} == {
        "from a workflow in two parts",
        "from a template",
    }


def test_update_does_not_change_the_committed_catalogue(template: Catalog, tmp_path: Path) -> None:
    """Otherwise the next update would move entries, and reviewers would see unrelated changes."""
    path = tmp_path / "messages.po"
    shutil.copy(po_path("zh_CN"), path)
    update("zh_CN", template, path)
    assert path.read_bytes() == po_path("zh_CN").read_bytes()
