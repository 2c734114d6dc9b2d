"""Documents that are sealed in bundles of their own before people hand them in."""

from __future__ import annotations

from include.documents.model import Document
from include.documents.render import render_forms
from include.evidence.model import Outcome
from include.incident import bundled
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import WORKFLOW, Phase
from include.incident.telling.authority_report import document_version
from include.messages import _
from include.reports.conclusion import Conclusion


def sealed_document(run: IncidentRun, record: IncidentRecord, document: Document, name: str) -> str:
    """Seal a document once for each version of its content, and return its path in the store.

    A document that somebody may have handed in is not made again; after another grade or count
    there is another one beside it. The document of a drill is a file of the drill's own bundle.

    Args:
        run: the run that asks for it.
        record: the incident.
        document: the document.
        name: of its files: ``first-cac``.
    """
    if run.services.is_drill:
        for file_name, content in render_forms(document, run.zone.key, name).files.items():
            run.keep_file(file_name, content)
        return "-"
    phase = Phase.FIRST if name.startswith(Phase.FIRST) else None
    workflow = f"{WORKFLOW}.{name}-{document_version(record, phase)}"
    row = run.task.find_interim(workflow)
    if row is None:
        conclusion = Conclusion(
            title=document.title,
            summary=_("{title}, {reference}", title=document.title, reference=document.reference),
            outcome=Outcome.PASS,
            findings=[],
            metrics=[],
        )
        files = render_forms(document, run.zone.key, name).files
        records = [bundled.record(record)]
        row = run.task.seal_interim(workflow, conclusion, files, records=records, pdf=False)
    return f"{run.services.store('evidence_store').description}/{row.bundle}"
