"""Data Docs: Great Expectations' own page about one validation, as a file for engineers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from include.expectations.check import RuleResult


def data_docs(name: str, results: Sequence[RuleResult], run_id: str, at: datetime) -> bytes:
    """Render the page of one collection, as HTML.

    It holds expectations and counts; no result it is made from holds a value of a record.

    Args:
        name: of the suite, ``courier.customer``.
        results: of one check, as they were judged; one that could not be checked has failed.
        run_id: of the run.
        at: when it was checked.
    """
    from include.expectations import gx  # sets its switches before its import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from great_expectations.core.expectation_validation_result import (
            ExpectationSuiteValidationResult,
            ExpectationValidationResult,
        )
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
        from great_expectations.render.view.view import DefaultJinjaPageView

        found = [
            result.evr
            or ExpectationValidationResult(
                success=False, expectation_config=gx.configuration_of(result.rule), result={}
            )
            for result in results
        ]
        good = sum(bool(result.success) for result in found)
        suite = ExpectationSuiteValidationResult(
            success=bool(found) and good == len(found),
            results=found,
            suite_name=name,
            statistics={
                "evaluated_expectations": len(found),
                "successful_expectations": good,
                "unsuccessful_expectations": len(found) - good,
                "success_percent": 100 * good / len(found) if found else None,
            },
            meta={
                "run_id": RunIdentifier(run_name=run_id, run_time=at),
                "expectation_suite_name": name,
                "batch_kwargs": {},
            },
        )
        page = ValidationResultsPageRenderer().render(suite)
        view: Any = DefaultJinjaPageView()  # it is untyped
        return str(view.render(page)).encode()
