"""What becomes of a test whose tool or file isn't there."""

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skips the test, but fails it in CI ($CI is set).

    There a test that does not run must not pass for one that did.
    """
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
