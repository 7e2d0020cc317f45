"""From ONNX to a plan's bytes: parse, configure, build; what goes wrong is one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from emi_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_engine.precision import Precision
    from emi_engine.tensorrt.library import Library

# Steps done, of how many, and the name of the phase; False ends the build. It must not raise: the library
# that calls it cannot carry an exception.
BuildProgress: TypeAlias = Callable[[int, int, str], bool]

__all__ = ["BuildProgress", "build_plan", "check_targets", "portable_targets"]

OLDEST: Final = {"fp32": 80, "bf16": 80, "fp16": 0}  # RTX has no fp32 GEMM for Turing (SM75), nor bf16


def portable_targets(library: Library, precision: Precision) -> tuple[str, ...]:
    """Every compute capability, `sm80` and so on, that a plan in this precision can be built for anywhere.

    Empty for a library that builds for the GPU that is here.
    """
    if not library.builds_without_gpu:
        return ()
    members = sorted(
        (name for name in library.api.ComputeCapability.__members__ if name.startswith("SM")),
        key=lambda name: int(name[2:]),
    )
    return tuple(name.lower() for name in members if int(name[2:]) >= OLDEST[precision])


def check_targets(library: Library, precision: Precision, targets: Sequence[str]) -> tuple[str, ...]:
    """The targets in the library's order, each once; all portable ones if none is named.

    Raises:
        ValueError: the library or the precision does not have one of them.
    """
    possible = portable_targets(library, precision)
    if targets and not possible:
        raise ValueError(f"{library.name} builds for the GPU that is here; leave targets out")
    if unknown := [target for target in targets if target.lower() not in possible]:
        raise ValueError(
            f"{library.name} {library.version} cannot build {precision} for {', '.join(unknown)}; "
            f"choose of {', '.join(possible)}"
        )
    wanted = {target.lower() for target in targets} or set(possible)
    return tuple(target for target in possible if target in wanted)


def build_plan(
    library: Library,
    model: bytes,
    *,
    targets: Sequence[str] = (),
    refit: bool = False,
    progress: BuildProgress | None = None,
) -> bytes:
    """A plan of an ONNX network whose shapes are fixed; its types are those that the ONNX states.

    Args:
        library: which one builds.
        model: the ONNX file's bytes.
        targets: as `check_targets` gives them; what TensorRT-RTX builds for.
        refit: keep weights exchangeable (`TensorRTEngine.refit`), at the price of some fusions.
        progress: is told how far the build is, in the thread that called this, and may end it.

    Raises:
        EngineError: the network cannot be parsed or built; the message has the library's reason.
    """
    api = library.api
    library.log.errors.clear()
    builder = api.Builder(library.log)
    flags = 0
    if library.asks_for_strong_typing:
        flags |= 1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = api.OnnxParser(network, library.log)  # owns the weights until the plan is built
    if not parser.parse(model) or network.num_outputs != 1:  # no bytes at all parse well, to no network
        raise EngineError(
            f"{library.name} {library.version} cannot parse the network: {_parse_error(parser, library)}; "
            "choose the engine `onnxruntime`"
        )
    config = builder.create_builder_config()
    config.clear_flag(api.BuilderFlag.TF32)  # on by default: fp32 is to mean fp32
    if refit:
        config.set_flag(api.BuilderFlag.REFIT)
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(getattr(api.ComputeCapability, target.upper()), index)
    if progress is not None:
        config.progress_monitor = _monitor(api, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{library.name} {library.version} cannot build the plan: {library.complaint()}; "
            "try another precision or target, or choose the engine `onnxruntime`"
        )
    return bytes(plan)


def _parse_error(parser: Any, library: Library) -> str:
    """What the parser says of the first node that it did not take."""
    if not parser.num_errors:
        return library.complaint()
    error = parser.get_error(0)
    where = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
    return f"{where}{' '.join(error.desc().split())}"


def _monitor(api: Any, progress: BuildProgress) -> Any:
    """The library's view of a `BuildProgress`."""

    class Monitor(api.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress(step + 1, self.steps[phase_name], phase_name)

        def phase_finish(self, phase_name: str) -> None:
            progress(self.steps[phase_name], self.steps[phase_name], phase_name)

    return Monitor()
