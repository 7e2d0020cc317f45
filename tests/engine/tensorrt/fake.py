"""TensorRT's Python API and a GPU, as far as the product uses them, on the CPU.

A fake plan is a word and the ONNX that it was built from; running it is ONNX Runtime on the memory at the
bound addresses. So a wrong binding, a stale copy or old weights show in the numbers. `calls` has what was
asked for, in order. `test_fake.py` compares the names here with those of the real library.
"""

from __future__ import annotations

import ctypes
import weakref
from contextlib import nullcontext
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError  # comes with onnx

from emi_engine.cuda import Gpu

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

MAGIC = b"PLAN"
L4 = Gpu("NVIDIA L4", (8, 9))
NUMPY = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.BOOL: np.bool_}


class FakeDevice:
    """A GPU whose stream runs at once what is enqueued; while capturing, not until it is replayed."""

    streams: dict[int, FakeDevice] = {}  # noqa: RUF012  # as CUDA's: handles are the process's

    def __init__(self, gpu: Gpu = L4) -> None:
        self.gpu = gpu
        self.stream = len(self.streams) + 1
        self.streams[self.stream] = self
        self.captures = self.replays = 0
        self._recording: list[Callable[[], None]] | None = None

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    def on_stream(self) -> AbstractContextManager[None]:
        return nullcontext()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        recorded: list[Callable[[], None]] = []
        self._recording = recorded
        work()
        self._recording = None

        def replay() -> None:
            self.replays += 1
            for step in recorded:
                step()

        return replay

    def wait(self) -> None:
        pass

    def enqueue(self, step: Callable[[], None]) -> None:
        if self._recording is not None:
            self._recording.append(step)
        else:
            step()


class FakeApi:
    """The module: `FakeApi().Builder(...)` and so on. What it is told to fail at, it fails at."""

    class DataType(IntEnum):
        FLOAT = onnx.TensorProto.FLOAT
        HALF = onnx.TensorProto.FLOAT16
        BOOL = onnx.TensorProto.BOOL

    class BuilderFlag(IntEnum):
        TF32 = 1
        REFIT = 2

    class NetworkDefinitionCreationFlag(IntEnum):
        STRONGLY_TYPED = 1

    class ILogger:
        def __init__(self) -> None:
            pass

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

    def __init__(  # noqa: C901  # one after the other, the classes of a module
        self, version: str = "11.4.0", *, fails: str = "", capturable: bool | None = None
    ) -> None:
        self.__version__ = version
        self.fails = fails  # the name of a call that fails, with `out of order` in the log
        self.capturable = capturable
        self.calls: list[str] = []
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()  # engines and contexts that hold GPU memory
        api = self

        def done(name: str, log: Any) -> bool:
            api.calls.append(name)
            if failing := name.partition(" ")[0] == api.fails:
                log.log(1, f"{name}:\n out of order")
            return not failing

        class Builder:
            def __init__(self, log: Any) -> None:
                self.log = log

            def create_network(self, flags: int) -> Any:
                api.calls.append(f"create_network {flags}")
                return INetworkDefinition()

            def create_builder_config(self) -> Any:
                return IBuilderConfig()

            def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
                api.calls.append(f"flags {sorted(flag.name for flag in config.flags)}")
                go_on = True
                if monitor := config.progress_monitor:
                    monitor.phase_start("tactics", None, 2)
                    go_on = monitor.step_complete("tactics", 0)
                    monitor.phase_finish("tactics")
                built = done("build_serialized_network", self.log) and go_on
                return MAGIC + network.model if built else None

        class INetworkDefinition:
            model = b""
            num_outputs = 0

        class IBuilderConfig:
            progress_monitor: Any = None

            def __init__(self) -> None:
                self.flags = {api.BuilderFlag.TF32}

            def set_flag(self, flag: Any) -> None:
                self.flags.add(flag)

            def clear_flag(self, flag: Any) -> None:
                self.flags.discard(flag)

        class OnnxParser:
            num_errors = 0

            def __init__(self, network: Any, log: Any) -> None:
                self.network, self.log = network, log

            def parse(self, model: bytes) -> bool:
                try:
                    graph = onnx.load_from_string(model).graph
                except DecodeError:
                    self.log.log(1, "no model")
                    return False
                self.network.model, self.network.num_outputs = model, len(graph.output)
                return done("parse", self.log)

        class Runtime:
            def __init__(self, log: Any) -> None:
                self.log = log

            def deserialize_cuda_engine(self, plan: bytes) -> Any:
                right = plan.startswith(MAGIC)
                if not right:
                    self.log.log(1, "magic tag does not match")
                return ICudaEngine(plan, self.log) if done("deserialize", self.log) and right else None

        class ICudaEngine:
            def __init__(self, plan: bytes, log: Any) -> None:
                api.alive.add(self)
                self.log = log
                self.exchange(plan[len(MAGIC) :])

            def exchange(self, model: bytes) -> None:
                parsed = onnx.load_from_string(model)
                graph = parsed.graph
                used = {name for node in graph.node for name in node.input}
                for value in [value for value in graph.input if value.name not in used]:
                    graph.input.remove(value)  # as a compiler may
                self.values = [*graph.input, *graph.output]
                self.inputs = [value.name for value in graph.input]
                self.session = onnxruntime.InferenceSession(
                    parsed.SerializeToString(), providers=["CPUExecutionProvider"]
                )

            @property
            def num_io_tensors(self) -> int:
                return len(self.values)

            def get_tensor_name(self, index: int) -> str:
                return self.values[index].name  # type: ignore[no-any-return]  # protobuf is untyped

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return tuple(d.dim_value for d in self._type(name).shape.dim)

            def get_tensor_dtype(self, name: str) -> Any:
                return api.DataType(self._type(name).elem_type)

            def create_execution_context(self) -> Any:
                if not done("create_execution_context", self.log):
                    return None
                return IExecutionContext(self) if api.capturable is None else CapturableContext(self)

            def _type(self, name: str) -> Any:
                return next(v for v in self.values if v.name == name).type.tensor_type

        class IExecutionContext:
            def __init__(self, engine: Any) -> None:
                api.alive.add(self)
                self.engine = engine
                self.addresses: dict[str, int] = {}

            def set_tensor_address(self, name: str, address: int) -> bool:
                self.addresses[name] = address
                return done(f"set_tensor_address {name}", self.engine.log)

            def execute_async_v3(self, stream: int) -> bool:
                FakeDevice.streams[stream].enqueue(self._run)
                return done("execute", self.engine.log)

            def _run(self) -> None:
                engine = self.engine
                feed = {name: self._at(name) for name in engine.inputs}
                self._at("intensities")[:] = engine.session.run(["intensities"], feed)[0]

            def _at(self, name: str) -> NDArray[Any]:
                """The memory that is bound to a name; no copy."""
                shape = self.engine.get_tensor_shape(name)
                dtype = NUMPY[self.engine.get_tensor_dtype(name)]
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                raw = (ctypes.c_uint8 * size).from_address(self.addresses[name])
                memory: NDArray[Any] = np.frombuffer(memoryview(raw), dtype).reshape(shape)
                return memory

        class CapturableContext(IExecutionContext):
            """As TensorRT-RTX has it."""

            def is_stream_capturable(self, stream: int) -> bool:
                return bool(api.capturable)

        class Refitter:
            def __init__(self, engine: Any, log: Any) -> None:
                self.engine, self.log = engine, log
                self.model = b""

            def refit_cuda_engine(self) -> bool:
                if taken := done("refit", self.log):
                    self.engine.exchange(self.model)
                return taken

        class OnnxParserRefitter:
            def __init__(self, refitter: Any, log: Any) -> None:
                self.refitter, self.log = refitter, log

            def refit_from_bytes(self, model: bytes) -> bool:
                self.refitter.model = model
                return done("refit_from_bytes", self.log)

        self.Builder, self.OnnxParser, self.Runtime = Builder, OnnxParser, Runtime
        self.Refitter, self.OnnxParserRefitter = Refitter, OnnxParserRefitter
        self.classes = (
            *(
                Builder,
                INetworkDefinition,
                IBuilderConfig,
                OnnxParser,
                Runtime,
                ICudaEngine,
                IExecutionContext,
            ),
            *(Refitter, OnnxParserRefitter, api.DataType, api.BuilderFlag, api.NetworkDefinitionCreationFlag),
        )
