"""Which providers are tried, in which order, and which are good enough."""

import pytest

from agent.core.manifest import PROVIDERS as IN_MANIFESTS
from agent.worker import providers

GPU_WHEEL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def test_every_provider_a_manifest_may_name_is_in_the_table() -> None:
    assert set(providers.PROVIDERS) == set(IN_MANIFESTS)


@pytest.mark.parametrize(
    ("wanted", "tried"),
    [
        (["cpu"], ["cpu"]),
        (["cuda"], ["cuda", "cpu"]),
        (["directml", "cpu", "cuda"], ["directml", "cpu", "cuda"]),
        (["auto"], ["tensorrt", "cuda", "cpu"]),
        (["openvino", "auto"], ["openvino", "tensorrt", "cuda", "cpu"]),
    ],
)
def test_wishes_are_tried_in_order_and_the_cpu_is_always_there(
    wanted: list[str], tried: list[str]
) -> None:
    assert list(providers.wishes(wanted, GPU_WHEEL)) == tried


def test_tensorrt_leaves_to_cuda_what_it_cannot_run() -> None:
    names = [name for name, _ in providers.asked("tensorrt", GPU_WHEEL)]
    assert names == GPU_WHEEL
    assert [name for name, _ in providers.asked("cpu", GPU_WHEEL)] == ["CPUExecutionProvider"]


def test_only_what_is_compiled_in_is_asked_for() -> None:
    asked = providers.asked("tensorrt", ["TensorrtExecutionProvider", "CPUExecutionProvider"])
    assert [name for name, _ in asked] == ["TensorrtExecutionProvider", "CPUExecutionProvider"]


def test_directml_runs_without_memory_patterns() -> None:
    assert not providers.PROVIDERS["directml"].mem_pattern


@pytest.mark.parametrize(
    ("require", "good", "bad"),
    [("any", ["cpu", "cuda"], []), ("accelerated", ["cuda"], ["cpu"]), ("cuda", ["cuda"], ["cpu"])],
)
def test_a_requirement_is_met_or_not(require: str, good: list[str], bad: list[str]) -> None:
    assert all(providers.satisfies(require, provider) for provider in good)
    assert not any(providers.satisfies(require, provider) for provider in bad)
