import pytest
import ray
from ray.cluster_utils import Cluster


@pytest.fixture(scope="session")
def cluster():
    """One core on one node, for all tests; whoever needs more adds nodes for a while."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()
