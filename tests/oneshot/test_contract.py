import pytest

from tests.contracts import proposer as kit


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", kit.NAMES)
def test_contract(name, check, trainer, tmp_path):
    check(name, trainer, tmp_path)
