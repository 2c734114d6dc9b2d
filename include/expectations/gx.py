"""Convert expectations of the policy pack to those of Great Expectations, and validate records.

Great Expectations computes metrics, such as a count of records, and derives from them whether an
expectation is met. One metric contains, for each expectation that ParcelSeal defines, the number of
records that break it. ParcelSeal computes this metric in a single scan. The same scan also provides
the metrics of the expectations that Great Expectations defines, because the SQL of Great
Expectations would compare columns with arguments of other types. The result format BOOLEAN_ONLY
ensures that no metric returns a value of a record.
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

from include.policy.expectations import Expectation, is_within_mostly

# Set before the import, because Great Expectations reads it only then.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
# The loggers of Great Expectations print statements and errors of PostgreSQL, which quote values.
# During the import they print hundreds of lines about its documentation.
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
    """Raised if Great Expectations could not compute a metric.

    The error does not repeat the message of Great Expectations, which would quote SQL and values.
    """


FOUND, BROKEN, ROWS = "parcelseal.found", "parcelseal.broken", "table.row_count"
COLUMNS = "table.column_types"
COUNT = "unexpected_count"
Find = Callable[[], Mapping[str, int]]
_FORMAT = {"result_format": "BOOLEAN_ONLY"}


class RecordsBatch(SqlAlchemyBatchData):
    """The records to validate, and the function that finds those that break expectations.

    Attributes:
        find: function that finds the records that break expectations. It passes on the keys of
            these records, and returns their number by id of the expectation.
        records: subquery that returns the records to validate.
    """

    find: Find
    records: sa.Subquery

    @property
    def selectable(self) -> sa.Subquery:
        """Return the subquery that returns the records to validate.

        The inherited property is overridden because it would give the subquery another alias.
        """
        return self.records


class AnsweringEngine(SqlAlchemyExecutionEngine):
    """An execution engine that takes metrics from ParcelSeal's own scan instead of new queries.

    The engine also provides the columns of the table, because Great Expectations would refuse a
    table with a column type that SQLAlchemy does not know.

    Attributes:
        answers: id of a metric -> function that returns the value of the metric.
        columns: columns of the table, in the format of Great Expectations.
    """

    answers: dict[Any, Callable[[], Any]]
    columns: list[dict[str, Any]]

    def resolve_metrics(
        self,
        metrics_to_resolve: Iterable[MetricConfiguration],
        metrics: dict[Any, Any] | None = None,
        runtime_configuration: dict[Any, Any] | None = None,
    ) -> dict[Any, Any]:
        """Return the values of the requested metrics, by id of the metric.

        Great Expectations computes only those metrics that neither ``answers`` nor ``columns``
        provides.
        """
        requested = list(metrics_to_resolve)
        answered = {
            metric.id: self.answers[metric.id]()
            for metric in requested
            if metric.id in self.answers
        }
        answered |= {
            metric.id: self.columns for metric in requested if metric.metric_name == COLUMNS
        }
        remaining = [metric for metric in requested if metric.id not in answered]
        if not remaining:
            return answered
        return {**super().resolve_metrics(remaining, metrics, runtime_configuration), **answered}


AnsweringEngine.__name__ = SqlAlchemyExecutionEngine.__name__  # metrics are registered by this name


class FoundRecords(TableMetricProvider):
    """The metric that contains, for each expectation, the number of records that break it."""

    metric_name = FOUND

    @metric_value(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(cls, execution_engine, **_: Any):  # type: ignore[no-untyped-def] # noqa: N805 - its form
        batch = execution_engine.batch_manager.active_batch_data
        assert isinstance(batch, RecordsBatch)
        return batch.find()


class BrokenRecords(TableMetricProvider):
    """The metric that contains the number of records that break one expectation.

    The number is taken from the metric `FoundRecords`.
    """

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
    """The base class of the expectations that ParcelSeal defines.

    An expectation is met if the share of records that meet its condition reaches `mostly`.

    Attributes:
        rule: id of the expectation in the policy pack.
        mostly: share of the records that must meet the condition, from 0 to 1.
        column: column that the expectation is about, for display; None if it is about several
            columns or none.
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
        """Return the metrics that Great Expectations has to compute for this expectation."""
        needed = super().get_validation_dependencies(execution_engine, runtime_configuration)
        rule_kwargs = {"rule": self.rule}
        needed.set_metric_configuration(
            BROKEN,
            MetricConfiguration(BROKEN, self._get_domain_kwargs(), metric_value_kwargs=rule_kwargs),
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
            "success": is_within_mostly(rows, broken, Decimal(str(self.mostly))),
            "result": {"element_count": rows, "unexpected_count": broken},
        }


class ExpectColumnValuesToBeBetween(CoreBetween):
    """The expectation that values are in a range whose limits may have any PostgreSQL type.

    The class of Great Expectations accepts only numbers and times as limits. ParcelSeal's own scan
    compares the values with the limits.
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
    _class: type[RecordExpectation] = type(
        _name, (RecordExpectation,), {"__module__": __name__, "__doc__": _name}
    )
    OURS[_class.expectation_type] = _class


@dataclass(frozen=True)
class ExpectationCounts:
    """The counts that Great Expectations computed for one expectation.

    Attributes:
        rows: number of records that were checked.
        broken: number of records that break the expectation. For an expectation about the whole
            table, it is 1 if the table breaks the expectation, otherwise 0.
        evr: validation result of Great Expectations, without values of records.
    """

    rows: int
    broken: int
    evr: ExpectationValidationResult


def configuration_of(expectation: Expectation) -> ExpectationConfiguration:
    """Convert an expectation of the policy pack to a configuration for Great Expectations."""
    if expectation.type in OURS:
        kwargs = {"rule": expectation.id, "mostly": getattr(expectation.kwargs, "mostly", 1.0)}
        if isinstance(column := getattr(expectation.kwargs, "column", None), str):
            kwargs["column"] = column
    else:
        kwargs = expectation.kwargs.model_dump(mode="json", exclude_none=True)
        if "column_list" in kwargs:
            kwargs["ignore_row_if"] = "any_value_is_missing"  # as in all other expectations
    severity = (
        FailureSeverity.CRITICAL if expectation.severity == "fail" else FailureSeverity.WARNING
    )
    meta = {"id": expectation.id, "clause": expectation.clause}
    return ExpectationConfiguration(
        type=expectation.type, kwargs=kwargs, meta=meta, severity=severity
    )


def not_validated(expectation: Expectation) -> ExpectationValidationResult:
    """Return a validation result without counts for an expectation that is not checked now.

    The counts of such an expectation come from an earlier check.
    """
    return ExpectationValidationResult(
        success=False, expectation_config=configuration_of(expectation), result={}
    )


def count(
    connection: sa.Engine,
    records: sa.Subquery,
    table: tuple[str, str],
    expectations: Sequence[Expectation],
    find: Find,
    scanned_rules: Collection[str],
    rows: int | None,
) -> dict[str, ExpectationCounts]:
    """Count the records that break each expectation, in as few scans as possible.

    Args:
        connection: SQLAlchemy engine that uses the open transaction.
        records: subquery that returns the records to check.
        table: schema and name of the table that contains the records.
        expectations: expectations about the records.
        find: function that finds the records that break expectations, and returns their number by
            id of the expectation. It is called when the first metric needs these numbers.
        scanned_rules: ids of the expectations for which `find` returns numbers.
        rows: number of records to check; None if it is not known yet.

    Returns:
        The counts, by id of the expectation.

    Raises:
        NotComputed: one of the queries failed.
    """
    validator = _validator(connection, records, table, find)
    engine = validator.execution_engine
    assert isinstance(engine, AnsweringEngine)
    domain = {"batch_id": validator.active_batch_id}
    dependencies: dict[str, Any] = {}
    metrics: list[MetricConfiguration] = []
    for rule in expectations:
        configuration = configuration_of(rule)
        configuration.kwargs.update(domain)
        expectation = configuration.to_domain_obj()
        needed = expectation.get_validation_dependencies(engine, dict(_FORMAT))
        dependencies[rule.id] = expectation, needed
        metrics += needed.metric_configurations.values()
        for name, metric in needed.metric_configurations.items():
            if name == ROWS and rows is not None:
                engine.answers[metric.id] = partial(int, rows)
            elif (
                rule.id in scanned_rules
                and name == f"{getattr(expectation, 'map_metric', '')}.{COUNT}"
            ):
                engine.answers[metric.id] = partial(_found, find, rule.id)
    # Great Expectations must not resolve known metrics: it would query their dependencies first,
    # including the types of all columns.
    answers = {
        metric.id: engine.answers[metric.id] for metric in metrics if metric.id in engine.answers
    }
    computed = _computed(validator, [metric for metric in metrics if metric.id not in answers])
    computed |= {metric: answer() for metric, answer in answers.items()}
    results = {}
    for rule_id, (expectation, needed) in dependencies.items():
        evr = expectation.metrics_validate(computed, dict(_FORMAT), engine)
        values = {
            name: computed[metric.id] for name, metric in needed.metric_configurations.items()
        }
        results[rule_id] = _counted(evr, values, getattr(expectation, "map_metric", None))
    return results


def _found(find: Find, rule: str) -> int:
    return find()[rule]


def _computed(validator: Validator, metrics: list[MetricConfiguration]) -> dict[Any, Any]:
    # With a high limit, Great Expectations shows no progress bar.
    values, aborted = validator.metrics_calculator.compute_metrics(
        metrics, dict(_FORMAT), min_graph_edges_pbar_enable=1_000_000
    )
    if aborted:
        raise NotComputed
    return values


def _validator(
    connection: sa.Engine,
    records: sa.Subquery,
    table: tuple[str, str],
    find: Find,
) -> Validator:
    engine = AnsweringEngine(engine=connection, create_temp_table=False)
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
    # Great Expectations builds these objects only from a datasource, and its types require one.
    batch: Any = {"data": data, "batch_definition": IDDict(schema=table[0], table=table[1])}
    return Validator(execution_engine=engine, batches=[Batch(**batch)])


def _counted(
    evr: ExpectationValidationResult, values: Mapping[str, Any], map_metric: str | None
) -> ExpectationCounts:
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
    return ExpectationCounts(rows, broken, evr)
