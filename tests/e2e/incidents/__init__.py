"""Tests of incidents of each type, from their trigger to the seal of their evidence."""

import pytest

pytest.register_assert_rewrite("tests.e2e.incidents.checks")
