"""Render the result of a check as a page of Data Docs, Great Expectations' format for engineers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from include.expectations.check import RuleResult


def data_docs(name: str, results: Sequence[RuleResult], run_id: str, at: datetime) -> bytes:
    """Render the result of checking one collection as an HTML page.

    The page contains expectations and counts, and no values of records.

    Args:
        name: name of the suite, for example ``courier.customer``.
        results: results of the check. An expectation that could not be checked is shown as failed.
        run_id: id of the run.
        at: time of the check.
    """
    from include.expectations import gx  # it configures Great Expectations before the import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from great_expectations.core.expectation_validation_result import (
            ExpectationSuiteValidationResult,
            ExpectationValidationResult,
        )
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
        from great_expectations.render.view.view import DefaultJinjaPageView

        validations = [
            result.evr
            or ExpectationValidationResult(
                success=False, expectation_config=gx.configuration_of(result.rule), result={}
            )
            for result in results
        ]
        passed = sum(bool(result.success) for result in validations)
        suite = ExpectationSuiteValidationResult(
            success=bool(validations) and passed == len(validations),
            results=validations,
            suite_name=name,
            statistics={
                "evaluated_expectations": len(validations),
                "successful_expectations": passed,
                "unsuccessful_expectations": len(validations) - passed,
                "success_percent": 100 * passed / len(validations) if validations else None,
            },
            meta={
                "run_id": RunIdentifier(run_name=run_id, run_time=at),
                "expectation_suite_name": name,
                "batch_kwargs": {},
            },
        )
        page = ValidationResultsPageRenderer().render(suite)
        view: Any = DefaultJinjaPageView()  # Great Expectations has no types for it
        return str(view.render(page)).encode()
