"""PyTorch's engines: compiled on the CPU for real, once; what only a GPU has, on memory of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from emi_engine.onnxruntime_engine import OnnxRuntimeCudaEngine
from emi_engine.parity import probe_window
from emi_engine.protocol import TOLERANCES, EngineError, EngineUnavailableError
from emi_engine.torch_engine import CompiledTorchEngine, TorchEngine
from emi_models.checkpoint import LoadedCheckpoint, load_checkpoint
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks.taemi import TaemiConfig
from tests.engine.conftest import write_checkpoint
from tests.engine.tensorrt.fake import FakeDevice

SHAPES = FusionShapes(vision_frames=12, vision_dim=10, audio_frames=20, audio_dim=9, text_dim=16)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where no GPU is")


class HostGpu(FakeDevice):
    """A GPU in the host's memory, whose graphs run the captured work again."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            work()

        return replay


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LoadedCheckpoint:
    config = TaemiConfig(shapes=SHAPES, d_model=32, heads=4, mlp_hidden=32)
    return load_checkpoint(write_checkpoint(tmp_path_factory.mktemp("small") / "net.safetensors", config))


@pytest.fixture
def graph(small: LoadedCheckpoint) -> Iterator[CompiledTorchEngine]:
    with CompiledTorchEngine(small, device="cuda", batch=3, compiled=False, gpu=HostGpu()) as engine:
        yield engine


def expected(checkpoint: LoadedCheckpoint, window: FusionInputs) -> np.ndarray:
    with torch.inference_mode():
        return checkpoint.network(window).numpy()


@pytest.mark.slow
def test_compiled_on_the_cpu_it_computes_the_same_for_any_batch(small: LoadedCheckpoint) -> None:
    with CompiledTorchEngine(small, batch=2) as engine:
        assert engine.name == "torch-compile-cpu"
        window = probe_window(SHAPES, 5, seed=3)
        strided = replace(window, text=window.text.T.contiguous().T)  # as no compiled program has seen it
        assert np.abs(engine.infer(window) - expected(small, window)).max() <= 1e-5
        assert np.array_equal(engine.infer(strided), engine.infer(window))


def test_a_captured_graph_is_replayed_over_inputs_that_stay_where_they_are(
    small: LoadedCheckpoint, graph: CompiledTorchEngine
) -> None:
    assert graph.name == "torch-graph-cuda-fp32"
    for seed, batch in enumerate((3, 1, 7, 2)):  # also fewer after more: rows of before are not seen again
        window = probe_window(SHAPES, batch, seed)
        assert np.abs(graph.infer(window) - expected(small, window)).max() <= 1e-6


def test_each_run_is_one_launch_of_the_one_graph(small: LoadedCheckpoint) -> None:
    gpu = HostGpu()
    with CompiledTorchEngine(small, device="cuda", batch=3, compiled=False, gpu=gpu) as engine:
        before = gpu.replays
        engine.infer(probe_window(SHAPES, 7))
        engine.enqueue()
        assert (gpu.captures, gpu.replays - before) == (1, 4)


def test_what_a_run_gave_is_not_touched_by_the_next(graph: CompiledTorchEngine) -> None:
    first = graph.infer(probe_window(SHAPES, 3))
    kept = first.copy()
    graph.infer(probe_window(SHAPES, 3, seed=1))
    assert np.array_equal(first, kept)


def test_a_closed_engine_gives_its_memory_back_and_says_so(graph: CompiledTorchEngine) -> None:
    graph.close()
    with pytest.raises(EngineError, match="closed"):
        graph.infer(probe_window(SHAPES, 1))
    with pytest.raises(EngineError, match="closed"):
        graph.enqueue()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_named_and_stays_near(small: LoadedCheckpoint, precision: str) -> None:
    window = probe_window(SHAPES, 8)
    with TorchEngine(small, precision=precision) as engine:  # type: ignore[arg-type]  # parametrised
        assert engine.name == f"torch-cpu-{precision}"
        difference = np.abs(engine.infer(window) - expected(small, window)).max()
    assert 0.0 < difference <= TOLERANCES[precision]  # type: ignore[index]  # parametrised
    assert small.network.head[0].weight.dtype == torch.float32  # type: ignore[index, union-attr]  # a Sequential


def test_another_network_is_found_out_when_it_is_made(small: LoadedCheckpoint) -> None:
    class Forgetful(HostGpu):
        """Its graphs do nothing when they are replayed."""

        def capture(self, work: Callable[[], None]) -> Callable[[], None]:
            return lambda: None

    with pytest.raises(EngineError, match="differs"):
        CompiledTorchEngine(small, device="cuda", compiled=False, gpu=Forgetful())


def test_without_a_compiler_it_says_what_to_install(
    small: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EngineUnavailableError, match="no-such-compiler"):
        CompiledTorchEngine(small)


@without_gpu
def test_without_a_gpu_it_says_so(small: LoadedCheckpoint) -> None:
    for make in (TorchEngine, CompiledTorchEngine):
        with pytest.raises(EngineUnavailableError, match="no NVIDIA GPU"):
            make(small, device="cuda")


def test_onnx_runtime_without_cuda_never_runs_on_the_cpu_instead(small: LoadedCheckpoint) -> None:
    with pytest.raises(EngineUnavailableError, match="no CUDAExecutionProvider"):
        OnnxRuntimeCudaEngine(small, b"", precision="fp32", batch=1, gpu=HostGpu())
