"""Great Expectations: our expectations as classes of its own, and one validation of one batch.

Great Expectations resolves a graph of metrics: what an expectation asks for, and what that depends
on. Ours all depend on one metric that finds the records that break the batch's rules, resolved once
for all of them. The metrics of its core expectations are answered by that scan too: its own SQL
compares columns with arguments of other types. No metric that holds a value of a record is ever
asked for (result format BOOLEAN_ONLY).
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import sqlalchemy as sa

from include.policy.expectations import Expectation, are_enough

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # before the import: it reads it once
# Its loggers print the statements and errors of PostgreSQL, which quote values; during the import
# they print hundreds of lines about its own documentation.
logging.getLogger("great_expectations").setLevel(logging.CRITICAL)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from great_expectations.core.batch import Batch
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.core.id_dict import IDDict
    from great_expectations.execution_engine.execution_engine import ExecutionEngine
    from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData
    from great_expectations.execution_engine.sqlalchemy_execution_engine import (
        SqlAlchemyExecutionEngine,
    )
    from great_expectations.expectations.core.expect_column_values_to_be_between import (
        ExpectColumnValuesToBeBetween as CoreBetween,
    )
    from great_expectations.expectations.expectation import BatchExpectation
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity
    from great_expectations.expectations.metrics.metric_provider import metric_value
    from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
    from great_expectations.validator.metric_configuration import MetricConfiguration
    from great_expectations.validator.validator import ValidationDependencies, Validator


class NotComputed(Exception):
    """Great Expectations could not compute a metric. Its words quote the statement and values."""


FOUND, BROKEN, ROWS = "parcelseal.found", "parcelseal.broken", "table.row_count"
COLUMNS = "table.column_types"
COUNT = "unexpected_count"
Find = Callable[[], Mapping[str, int]]
_FORMAT = {"result_format": "BOOLEAN_ONLY"}


class RecordsBatch(SqlAlchemyBatchData):
    """Records, and how those are found that break rules.

    Attributes:
        find: finds them, names them and counts them by rule.
        records: the batch.
    """

    find: Find
    records: sa.Subquery

    @property
    def selectable(self) -> sa.Subquery:
        """The records under their own name; Great Expectations would rename them."""
        return self.records


class KnowingEngine(SqlAlchemyExecutionEngine):
    """Its engine, which does not ask PostgreSQL again for what our one scan has found.

    Nor for the table's columns: it would refuse all rules of a table that has a column of a type
    that SQLAlchemy does not know, though no rule names it.

    Attributes:
        answers: how to get the value of a metric that is known otherwise, by the metric's id.
        columns: what it takes the table's columns for.
    """

    answers: dict[Any, Callable[[], Any]]
    columns: list[dict[str, Any]]

    def resolve_metrics(
        self,
        metrics_to_resolve: Iterable[MetricConfiguration],
        metrics: dict[Any, Any] | None = None,
        runtime_configuration: dict[Any, Any] | None = None,
    ) -> dict[Any, Any]:
        """Answer what is known; its own engine computes the rest."""
        wanted = list(metrics_to_resolve)
        known = {
            metric.id: self.answers[metric.id]() for metric in wanted if metric.id in self.answers
        }
        known |= {metric.id: self.columns for metric in wanted if metric.metric_name == COLUMNS}
        left = [metric for metric in wanted if metric.id not in known]
        if not left:
            return known
        return {**super().resolve_metrics(left, metrics, runtime_configuration), **known}


KnowingEngine.__name__ = SqlAlchemyExecutionEngine.__name__  # metrics are registered by this name


class FoundRecords(TableMetricProvider):
    """How many records of the batch break each rule; their keys go elsewhere meanwhile."""

    metric_name = FOUND

    @metric_value(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(cls, execution_engine, **_: Any):  # type: ignore[no-untyped-def] # noqa: N805 - its form
        batch = execution_engine.batch_manager.active_batch_data
        assert isinstance(batch, RecordsBatch)
        return batch.find()


class BrokenRecords(TableMetricProvider):
    """How many records break one rule."""

    metric_name = BROKEN
    value_keys = ("rule",)

    @metric_value(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(cls, metric_value_kwargs, metrics, **_: Any):  # type: ignore[no-untyped-def] # noqa: N805 - its form
        return metrics[FOUND][metric_value_kwargs["rule"]]

    @classmethod
    def _get_evaluation_dependencies(
        cls,
        metric: MetricConfiguration,
        configuration: ExpectationConfiguration | None = None,
        execution_engine: ExecutionEngine[Any] | None = None,
        runtime_configuration: dict[Any, Any] | None = None,
    ) -> dict[str, MetricConfiguration]:
        return {FOUND: MetricConfiguration(FOUND, metric.metric_domain_kwargs)}


class RecordExpectation(BatchExpectation):
    """An expectation of ours: so many of the records may meet the condition of its rule.

    Attributes:
        rule: id of the expectation in the pack.
        mostly: share of the records that has to be as expected.
        column: the column it is about, where it is about one; for people.
    """

    rule: str
    mostly: float = 1.0
    column: str | None = None

    domain_keys = ("batch_id", "table")
    success_keys = ("rule", "mostly")
    metric_dependencies = (ROWS,)

    def get_validation_dependencies(
        self,
        execution_engine: ExecutionEngine[Any] | None = None,
        runtime_configuration: dict[Any, Any] | None = None,
    ) -> ValidationDependencies:
        """Ask how many records break the rule."""
        needed = super().get_validation_dependencies(execution_engine, runtime_configuration)
        asked = {"rule": self.rule}
        needed.set_metric_configuration(
            BROKEN,
            MetricConfiguration(BROKEN, self._get_domain_kwargs(), metric_value_kwargs=asked),
        )
        return needed

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: Any = None,
        execution_engine: Any = None,
    ) -> dict[str, Any]:
        rows, broken = int(metrics[ROWS]), int(metrics[BROKEN])
        return {
            "success": are_enough(rows, broken, Decimal(str(self.mostly))),
            "result": {"element_count": rows, "unexpected_count": broken},
        }


class ExpectColumnValuesToBeBetween(CoreBetween):
    """Great Expectations' own expectation, with ends of a range in any type of PostgreSQL.

    Great Expectations itself accepts only numbers and moments. It does not compare values here.
    """

    min_value: Any = None
    max_value: Any = None


OURS: dict[str, type[RecordExpectation]] = {}
for _name in (
    "ExpectColumnValuesToNotBeBlank",
    "ExpectColumnValuesToBeMobileNumbers",
    "ExpectColumnValuesToBeEmailAddresses",
    "ExpectColumnValuesToBeResidentIdNumbers",
    "ExpectColumnValuesToExistIn",
    "ExpectColumnValuesToBeRecent",
    "ExpectColumnValuesToNotBeCollected",
    "ExpectRecordsToBeDistinct",
    "ExpectRecordsToSatisfy",
    "ExpectRelatedRecords",
):
    _made: type[RecordExpectation] = type(
        _name, (RecordExpectation,), {"__module__": __name__, "__doc__": _name}
    )
    OURS[_made.expectation_type] = _made


@dataclass(frozen=True)
class Counted:
    """What Great Expectations found of one expectation.

    Attributes:
        rows: records looked at.
        broken: records that are not as expected; of an expectation about the whole table 0 or 1.
        evr: its own result, without values.
    """

    rows: int
    broken: int
    evr: ExpectationValidationResult


def configuration_of(one: Expectation) -> ExpectationConfiguration:
    """The expectation as Great Expectations writes it."""
    if one.type in OURS:
        kwargs = {"rule": one.id, "mostly": getattr(one.kwargs, "mostly", 1.0)}
        if isinstance(column := getattr(one.kwargs, "column", None), str):
            kwargs["column"] = column
    else:
        kwargs = one.kwargs.model_dump(mode="json", exclude_none=True)
        if "column_list" in kwargs:
            kwargs["ignore_row_if"] = "any_value_is_missing"  # as everywhere else here
    severity = FailureSeverity.CRITICAL if one.severity == "fail" else FailureSeverity.WARNING
    meta = {"id": one.id, "clause": one.clause}
    return ExpectationConfiguration(type=one.type, kwargs=kwargs, meta=meta, severity=severity)


def not_validated(one: Expectation) -> ExpectationValidationResult:
    """Return an empty result of an expectation, for figures of an earlier check."""
    return ExpectationValidationResult(
        success=False, expectation_config=configuration_of(one), result={}
    )


def count(
    connection: sa.Engine,
    records: sa.Subquery,
    table: tuple[str, str],
    expectations: Sequence[Expectation],
    find: Find,
    found: Collection[str],
    rows: int | None,
) -> dict[str, Counted]:
    """Count what breaks each expectation, in as few scans as its metrics need.

    Args:
        connection: SQLAlchemy's engine on the open snapshot.
        records: the batch.
        table: schema and name of its table.
        expectations: of the suite.
        find: finds the records that break rules; called when they are asked for.
        found: the rules that it counts.
        rows: how many records the batch has, where that is known.

    Returns:
        The counts by rule.

    Raises:
        NotComputed: one of the queries failed.
    """
    validator = _validator(connection, records, table, find)
    engine = validator.execution_engine
    assert isinstance(engine, KnowingEngine)
    domain = {"batch_id": validator.active_batch_id}
    wanted: dict[str, Any] = {}
    metrics: list[MetricConfiguration] = []
    for one in expectations:
        configuration = configuration_of(one)
        configuration.kwargs.update(domain)
        expectation = configuration.to_domain_obj()
        needed = expectation.get_validation_dependencies(engine, dict(_FORMAT))
        wanted[one.id] = expectation, needed
        metrics += needed.metric_configurations.values()
        for name, metric in needed.metric_configurations.items():
            if name == ROWS and rows is not None:
                engine.answers[metric.id] = partial(int, rows)
            elif one.id in found and name == f"{getattr(expectation, 'map_metric', '')}.{COUNT}":
                engine.answers[metric.id] = partial(_found, find, one.id)
    # What is known is not asked for at all: Great Expectations would first find out what each
    # depends on, down to the types of the table's columns.
    answers = {
        metric.id: engine.answers[metric.id] for metric in metrics if metric.id in engine.answers
    }
    computed = _computed(validator, [metric for metric in metrics if metric.id not in answers])
    computed |= {metric: answer() for metric, answer in answers.items()}
    results = {}
    for rule, (expectation, needed) in wanted.items():
        evr = expectation.metrics_validate(computed, dict(_FORMAT), engine)
        values = {name: computed[one.id] for name, one in needed.metric_configurations.items()}
        results[rule] = _counted(evr, values, getattr(expectation, "map_metric", None))
    return results


def _found(find: Find, rule: str) -> int:
    return find()[rule]


def _computed(validator: Validator, metrics: list[MetricConfiguration]) -> dict[Any, Any]:
    # No progress bar below so many edges of its graph: nobody watches.
    found, aborted = validator.metrics_calculator.compute_metrics(
        metrics, dict(_FORMAT), min_graph_edges_pbar_enable=1_000_000
    )
    if aborted:
        raise NotComputed
    return found


def _validator(
    connection: sa.Engine,
    records: sa.Subquery,
    table: tuple[str, str],
    find: Find,
) -> Validator:
    engine = KnowingEngine(engine=connection, create_temp_table=False)
    engine.answers = {}
    engine.columns = [{"name": column.name, "type": column.type} for column in records.c]
    data = RecordsBatch(
        execution_engine=engine,
        selectable=records,
        create_temp_table=False,
        source_schema_name=table[0],
        source_table_name=table[1],
    )
    data.find, data.records = find, records
    # Its own classes make these from a datasource; its types know no other way.
    batch: Any = {"data": data, "batch_definition": IDDict(schema=table[0], table=table[1])}
    return Validator(execution_engine=engine, batches=[Batch(**batch)])


def _counted(
    evr: ExpectationValidationResult, values: Mapping[str, Any], map_metric: str | None
) -> Counted:
    rows = int(values.get(ROWS) or 0)
    if isinstance(values.get(BROKEN), int):
        broken = values[BROKEN]
    elif map_metric is not None:
        broken = int(values[f"{map_metric}.{COUNT}"] or 0)  # a sum over no rows is null
    else:
        broken = 0 if evr.success else 1
    evr.result = {
        "element_count": rows,
        "unexpected_count": broken,
        "unexpected_percent": 100 * broken / rows if rows else 0.0,
    }
    return Counted(rows, broken, evr)
