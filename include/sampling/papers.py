"""From what was drawn to the workpapers of one stage."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from include.messages import Message
from include.sampling.commitment import Commitment, Committed
from include.sampling.names import sample_file
from include.sampling.rules import Attribute, AuditRules
from include.sampling.samples import Drawn, Sample
from include.sampling.seeds import Seed
from include.sampling.workpapers import writing
from include.sampling.workpapers.writing import Item, Paper, Workpapers


def draw_digest(samples: Mapping[str, bytes]) -> str:
    """Return the digest that binds workpapers to a draw.

    It is SHA-256 over the lines that `sha256sum samples/*.json` prints in the bundle, sorted by
    name.

    Args:
        samples: content of each sample's file, by population.
    """
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {sample_file(population)}\n"
        for population, content in sorted(samples.items())
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def workpapers(
    commitment: Commitment,
    samples: Mapping[str, bytes],
    rules: AuditRules,
    seed: Seed,
    stage: int,
    timezone: str,
) -> Workpapers:
    """Make the workpapers of one stage: the same for the same draw.

    Args:
        commitment: of the run.
        samples: content of each sample's file, by population.
        rules: audit.yaml.
        seed: by which they were drawn.
        stage: from 1; populations that have no such stage, or no sample here, are not among them.
        timezone: of times that people read.
    """
    papers = []
    for one in commitment.populations:
        if one.population not in samples:  # another run drew it
            continue
        drawn = Sample.model_validate_json(samples[one.population]).of_stage(stage)
        if not drawn:
            continue
        population = rules.population(one.population)
        papers.append(
            Paper(
                population=one.population,
                title=population.message,
                attributes=tuple(map(_attribute, population.attributes)),
                items=tuple(map(_item, drawn)),
                frame_sha256=one.sha256,
                population_size=one.items,
            )
        )
    return Workpapers(
        audit=commitment.audit,
        stage=stage,
        draw_sha256=draw_digest(samples),
        issued_at=seed.entered_at,
        timezone=timezone,
        papers=tuple(papers),
    )


def stage_papers(
    before: Workpapers,
    committed: Mapping[str, Committed],
    samples: Mapping[str, Sample],
    wanted: Collection[str],
    at: datetime,
) -> Workpapers:
    """Make the workpapers of the stage after one that was issued, with the same questions.

    Args:
        before: of the stage before.
        committed: by population.
        samples: by population.
        wanted: populations whose plan calls for it.
        at: the moment of issue.
    """
    stage = before.stage + 1
    papers = [
        replace(
            paper,
            items=tuple(map(_item, samples[paper.population].of_stage(stage))),
            population_size=committed[paper.population].items,
        )
        for paper in before.papers
        if paper.population in wanted
    ]
    return replace(before, stage=stage, issued_at=at, papers=tuple(papers))


def _item(one: Drawn) -> Item:
    return Item(one.number, one.stage, one.line, one.key, one.stratum)


def _attribute(one: Attribute) -> writing.Attribute:
    return writing.Attribute(id=one.id, question=one.message, criterion=_criterion(one))


def _criterion(one: Attribute) -> Message:
    """The source of what is asked: no words of the catalogue, which may be bettered meanwhile."""
    if isinstance(one.basis, str):
        cited = {
            "en": "the company's own information protection policy",
            "zh-CN": "公司自行制定的信息保护制度",
        }
    else:
        name, version, article = one.basis.instrument, one.basis.version, one.basis.article
        cited = {
            "en": f"{name['en']} ({version}), article {article}",
            "zh-CN": f"{name['zh-CN']}（{version}）第 {article} 条",
        }
    return Message(text=cited["en"], translations=cited)
