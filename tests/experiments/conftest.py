import pytest


@pytest.fixture(scope="module", autouse=True)
def _once(picto_once):
    pass
