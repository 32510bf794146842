"""A rig on fakes."""

import pytest

from tests.service.webhooks.rig import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()
