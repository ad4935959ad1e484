from __future__ import annotations

from scaler.drivers.gpus import GpuNeed, Taken, free_gpus


def test_whole_gpus_go_to_one_consumer_each() -> None:
    need = GpuNeed(gpus=2)

    assert free_gpus(["0", "1", "2"], [], need) == ["0", "1"]
    assert free_gpus(["0", "1", "2"], [Taken(gpus=["0", "1"], share=1.0)], need) is None


def test_a_shared_gpu_is_filled_before_the_next_is_begun() -> None:
    need = GpuNeed(consumers_per_gpu=3)
    taken: list[Taken] = []
    for _ in range(4):
        found = free_gpus(["0", "1"], taken, need)
        assert found is not None
        taken.append(Taken(gpus=found, share=need.share))

    assert [one.gpus for one in taken] == [["0"], ["0"], ["0"], ["1"]]
    assert free_gpus(["0", "1"], taken, GpuNeed()) is None


def test_on_a_machine_without_gpus_nobody_needs_one() -> None:
    assert free_gpus([], [Taken(gpus=[], share=1.0)], GpuNeed(gpus=4)) == []


def test_a_consumer_that_needs_no_gpu_gets_none_and_always_fits() -> None:
    assert free_gpus(["0"], [Taken(gpus=["0"], share=1.0)], GpuNeed(gpus=0)) == []
