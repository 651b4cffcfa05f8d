import pytest

from autopeft.core.errors import SpaceError
from autopeft.space import SearchSpace
from tests.contracts import proposer as kit

FROM_DATA = SearchSpace(
    place=[{"method": "sparse", "select": "fisher"}], backbone={"dtype": "float32"}
)


@pytest.mark.parametrize("name", ["pruning", "supernet", "switches"])
def test_a_space_without_anything_to_train_is_told(name, trainer, tmp_path):
    search = kit.begun(name, trainer, kit.problem(trainer, space=FROM_DATA), tmp_path)
    with pytest.raises(SpaceError, match="no placement"):
        list(search)
