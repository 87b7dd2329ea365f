from sftjob.place.notes import notes_on
from tests.unit.test_place import make_profile, placed


class TestNotes:
    def test_several_nodes_over_plain_tcp(self) -> None:
        fast = make_profile(extra_resources={"rdma/hca": 1})

        (note,) = notes_on(placed(launch={"nodes": 2}))

        assert "NCCL takes TCP" in note
        assert not [*notes_on(placed(fast, launch={"nodes": 2}))]
        assert not [*notes_on(placed(launch={"nodes": 2, "gpus_per_node": 0}))]

    def test_an_evaluation_as_large_as_the_training(self) -> None:
        many = {"gpus_per_node": 8}

        (note,) = notes_on(placed(launch=many))

        assert "asks for 32Gi of memory, as the training with 8 GPUs does" in note
        assert not [*notes_on(placed(launch=many, resources={"evaluation": {"memory": "16Gi"}}))]
        assert not [*notes_on(placed(launch=many, kubernetes={"evaluation": "never"}))]
        assert not [*notes_on(placed())]
