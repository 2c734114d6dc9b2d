"""A reader of verify.html in Chromium, and the changes that tests make in an unpacked pack."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, expect


@dataclass
class Check:
    """The result that verify.html shows.

    Attributes:
        verdict: ``good``, ``care`` or ``bad``; empty if nothing was checked.
        problems: texts of the problems by file.
        text: complete text of the result, also of its folded parts.
    """

    verdict: str
    problems: dict[str, list[str]]
    text: str


@dataclass
class Inspector:
    """A person who opens the page verify.html of a pack."""

    browser: Browser
    requests: list[str] = field(default_factory=list)

    def open(self, page_file: Path, language: str = "en") -> Page:
        """Open a page from the disk in a browser without a network."""
        context = self.browser.new_context(locale=language, offline=True)
        page = context.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda said: self.requests.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.requests.append(f"error: {error}"))
        page.goto(page_file.as_uri())
        return page

    def check(
        self,
        pack: Path,
        *,
        verifier: Path | None = None,
        expected: str | None = None,
        lang: str = "en",
    ) -> Check:
        """Check a folder or a ZIP file, and return the result that the page shows.

        Args:
            pack: unpacked folder, or the ZIP file.
            verifier: the page; by default `verify.html` in the folder.
            expected: fingerprint to enter; by default the fingerprint in the name of the first key.
            lang: language of the browser.
        """
        page = self.open(verifier or pack / "verify.html", lang)
        if expected is None:
            keys = (verifier or pack / "verify.html").with_name("keys")
            expected = min(keys.iterdir()).stem if keys.is_dir() else ""
        page.locator("#expected").fill(expected)
        page.locator("#folder" if pack.is_dir() else "#archive").set_input_files(pack)
        result = page.locator("#result")
        expect(result).to_be_visible()
        problems: dict[str, list[str]] = {}
        for row in page.locator("tr.problem").all():
            file, problem = row.locator("td").all_inner_texts()
            problems.setdefault(file, []).append(problem)
        page.locator("details").evaluate_all("(folds) => folds.forEach((f) => { f.open = true; })")
        check = Check(result.get_attribute("data-verdict") or "", problems, result.inner_text())
        page.context.close()
        assert [url for url in self.requests if not url.startswith("file://")] == []
        return check


def bundle(folder: Path, month: int = 8) -> Path:
    """Return the folder of the bundle that `enforce_retention` sealed in a month of the quarter."""
    return next((folder / "bundles" / "enforce_retention" / "2026" / f"{month:02}").iterdir())


def name_of(path: Path, folder: Path) -> str:
    """Return the path of a file inside of the pack, as the page shows it."""
    return path.relative_to(folder).as_posix()


def renewed_list(folder: Path) -> None:
    """Write pack.sha256 again, as a forger would."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name_of(path, folder)}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "pack.sha256"
    ]
    (folder / "pack.sha256").write_text("".join(lines))


def changed_manifest(folder: Path, **values: object) -> None:
    """Change values of manifest.json, and write pack.sha256 again."""
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    renewed_list(folder)


def cut_row(folder: Path, number: int) -> None:
    """Remove a row of the evidence ledger."""
    file = folder / "chain" / "ledger.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if f'"seq":{number},' not in line))
