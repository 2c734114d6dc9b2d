"""Incidents of each type, led from their trigger to their seal."""

import pytest

pytest.register_assert_rewrite("tests.e2e.incidents.checks")
