"""What tests of promises share."""

from collections.abc import Callable

import pytest

from tests.device import eventually


@pytest.fixture
def until() -> Callable:
    return eventually
