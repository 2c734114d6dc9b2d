"""Generate the pages about controls, notification kinds, and the findings of each package."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from include.policy.loader import SHIPPED
from include.reference.docstrings import summary
from include.reference.finding_codes import FindingCode, finding_codes
from include.reference.markdown import Page, code, plain, render, table
from include.registry import WORKFLOWS, load_pack, notification_kinds, workflow, workflows
from include.workflow.declaration import AnyWorkflow

FOLDER = "findings"
_SUBJECTS = {
    "backup": "backups and restore drills",
    "evidence": "evidence",
    "incident": "incidents",
    "intake": "incoming batches",
    "notify": "notifications",
    "orchestration": "failed and interrupted runs",
    "partners": "partners",
    "quality": "the quality of records",
    "retention": "retention and disposition",
    "sampling": "audits",
    "schema": "differences between data maps and databases",
    "training": "training",
    "workflow": "missing step records",
}
"""What the findings of a package of include/ are about."""
_VARYING = "depends on the cause"


def workflows_of(package: str) -> list[AnyWorkflow]:
    """Return the workflows that are declared in a package of include/."""
    return [workflow(name) for name, path in WORKFLOWS.items() if path.split(".")[1] == package]


def _control_rows() -> Iterator[tuple[str, ...]]:
    for control in load_pack(SHIPPED).controls:
        sources = "; ".join(source.citations["en"] for source in control.sources)
        yield (
            code(control.id),
            control.clause,
            control.title["en"],
            control.title["zh-CN"],
            code(control.workflow),
            code(control.cadence.text),
            f"{code(control.indicator.name)} {code(control.indicator.target)}",
            sources,
        )


def _workflow_rows() -> Iterator[tuple[str, ...]]:
    for declaration in workflows():
        yield (
            code(declaration.id),
            declaration.title.text,
            ", ".join(declaration.clauses),
            str(declaration.cadence),
        )


def _notification_rows() -> Iterator[tuple[str, ...]]:
    for name, (declaring, kind) in notification_kinds().items():
        function = kind.still_due
        if isinstance(function, partial):
            function = function.func
        due = summary(function).removeprefix("Return the keys of ")
        yield code(name), code(declaring.id), ", ".join(declaring.clauses), due


def _row(finding: FindingCode) -> tuple[str, ...]:
    outcomes = " or ".join(finding.outcomes) or _VARYING
    return code(finding.code), outcomes, plain(finding.message), plain(finding.action)


def finding_pages() -> Iterator[Page]:
    """Yield a page of findings for each package, and the index of these pages."""
    by_package: dict[str, list[FindingCode]] = {}
    for finding in finding_codes():
        by_package.setdefault(finding.package, []).append(finding)
    pages = []
    for package, codes in by_package.items():
        declared = workflows_of(package)
        names = ", ".join(code(declaration.id) for declaration in declared) or "several workflows"
        clauses = ", ".join(
            dict.fromkeys(clause for declaration in declared for clause in declaration.clauses)
        )
        subject = _SUBJECTS.get(package, package)
        pages.append((package, subject, names, clauses, str(len(codes))))
        rows = list(map(_row, codes))
        yield render(
            "findings.md.j2",
            f"{FOLDER}/{package}.md",
            subject=subject,
            names=names,
            clauses=clauses,
            has_empty=any("" in row for row in rows),
            findings=table(("finding", "outcome", "message", "action"), rows),
        )
    yield render(
        "finding_index.md.j2",
        "findings.md",
        workflows=table(("workflow", "title", "clauses", "schedule"), _workflow_rows()),
        controls=table(
            ("control", "clause", "title", "中文", "workflow", "every", "indicator", "sources"),
            _control_rows(),
        ),
        notifications=table(("kind", "workflow", "clauses", "still due"), _notification_rows()),
        pages=table(
            ("findings about", "reported by", "clauses", "number of codes"),
            ((f"[{subject}]({FOLDER}/{name}.md)", *cells) for name, subject, *cells in pages),
        ),
    )
