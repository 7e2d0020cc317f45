"""Each clip is streamed in each way, and compared with one pass over all of it.

The speech model and the network are given ones, or ones with seeded random weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from emi_bench.drift_report import DriftBenchReport, DriftClip, StreamResult, WholePass
from emi_bench.measurement import Distribution, Machine, load_average
from emi_bench.report import Interrupted
from emi_live.errors import ConfigurationError
from emi_models import EMOTIONS
from emi_models.encoders.wav2vec import (
    HOP_SAMPLES,
    PIECE_SAMPLES,
    RATE_HZ,
    compare_features,
    compare_intensities,
    frame_cosines,
    with_voice,
)
from emi_models.encoders.wav2vec_stream import StreamingWav2vec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_bench.drift_report import StreamSetting
    from emi_models.encoders.wav2vec import Wav2vecEncoder
    from emi_models.inputs import FusionInputs
    from emi_models.networks.base import FusionNetwork

__all__ = [
    "RANDOM_MODELS",
    "DriftProgress",
    "IntensityNetwork",
    "VoiceModel",
    "WorkCounter",
    "measure_drift",
    "open_network",
    "open_voice_model",
]

SEED: Final = 0
LEAST_SAMPLES: Final = 8_000
# audeering's shape, and a shape that any machine runs many times faster than real time.
RANDOM_MODELS: Final[Mapping[str, dict[str, Any]]] = {
    "random-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "random-small": {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "conv_dim": (64,) * 7,
        "num_conv_pos_embedding_groups": 4,
    },
}
LARGE: Final = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WHOLE_PASSES: Final = 3  # timed, after one that is not
FRAMES_A_SECOND: Final = RATE_HZ // HOP_SAMPLES  # the network runs once for each second of sound


@dataclass(frozen=True, slots=True, eq=False)
class VoiceModel:
    """A speech model, its description, and whether its weights are random."""

    encoder: Wav2vecEncoder
    what: str
    random: bool


@dataclass(frozen=True, slots=True, eq=False)
class IntensityNetwork:
    """A network for six intensities, and how many seconds of voice it gets."""

    network: FusionNetwork
    what: str
    random: bool
    span_s: float


def read_clips(paths: Sequence[Path]) -> list[tuple[str, NDArray[np.float32]]]:
    """Name and samples (n,) at 16 kHz of each recording.

    Raises:
        ConfigurationError: one is shorter than half a second.
        SourceError: one cannot be read.
    """
    from emi_bench.speech.clips import read_sound

    found = [(path.name, read_sound(path)) for path in paths]
    if short := [name for name, samples in found if samples.size < LEAST_SAMPLES]:
        raise ConfigurationError(f"{', '.join(short)}: shorter than half a second; give longer recordings")
    return found


def open_voice_model(name: str, scratch: Path) -> VoiceModel:
    """Open the model in a folder, or a random one of `RANDOM_MODELS`, which is written to `scratch` first.

    Raises:
        ConfigurationError: `name` is neither.
        ModelUnavailableError, ModelIntegrityError: the folder does not hold a model that can run.
    """
    from pathlib import Path

    from emi_models.encoders.wav2vec import Wav2vecEncoder, identify_speech

    random = name in RANDOM_MODELS
    folder = scratch if random else Path(name)
    if not folder.is_dir():
        raise ConfigurationError(
            f"--model {name} is not a folder; give one with a model's config.json and model.safetensors, or "
            f"{' or '.join(RANDOM_MODELS)}"
        )
    if random:
        _write_random(folder, RANDOM_MODELS[name])
    encoder = Wav2vecEncoder(folder, identify_speech(folder))
    config = encoder.model.config
    what = (
        f"{config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.feat_extract_norm} norm in the convolutions"
    )
    if random:
        return VoiceModel(encoder, f"{name}, {what}, seed {SEED}", random)
    return VoiceModel(encoder, f"{encoder.encoder_id}: {what}", random)


def open_network(checkpoint: Path | None, voice_model: VoiceModel) -> IntensityNetwork:
    """Open the network of a checkpoint, or a TAEMI of the paper's sizes with seeded random weights.

    Raises:
        CheckpointError: it cannot be read, or does not take this model's features or give six intensities.
    """
    import torch

    from emi_models.checkpoint import load_checkpoint
    from emi_models.errors import CheckpointError
    from emi_models.inputs import TAEMI_SHAPES
    from emi_models.networks import build_network

    encoder = voice_model.encoder
    if checkpoint is None:
        shapes = {
            name: getattr(TAEMI_SHAPES, name)
            for name in ("vision_frames", "vision_dim", "audio_frames", "text_dim")
        }
        config: dict[str, Any] = {"shapes": {**shapes, "audio_dim": encoder.dim}}
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            network = build_network("taemi", config, ("vision", "audio", "text")).eval()
        return IntensityNetwork(
            network, f"TAEMI of the paper's sizes, random weights, seed {SEED}", True, 12.0
        )
    loaded = load_checkpoint(checkpoint, {"audio": encoder.encoder_id})
    header = loaded.header
    if "audio" not in header.modalities or header.emotions != EMOTIONS:
        raise CheckpointError(
            f"{checkpoint} was trained on {', '.join(header.modalities)} and gives "
            f"{', '.join(header.emotions) or 'no emotions'}; drift needs one with audio and six intensities"
        )
    what = f"{checkpoint.name}: {header.system}, sha256 {loaded.content_hash[:12]}"
    return IntensityNetwork(loaded.network, what, False, float(header.spans_s.get("audio", 12.0)))


def _write_random(folder: Path, sizes: dict[str, Any]) -> None:
    """Write a model's files with random weights and a random head, as in a repository of the Hub."""
    import torch
    import transformers
    from safetensors.torch import save_file

    from emi_models.encoders.wav2vec import AFFECT

    width = sizes["hidden_size"]
    config = transformers.Wav2Vec2Config(**sizes, **LARGE, id2label=dict(enumerate(AFFECT)))
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = transformers.Wav2Vec2Model(config)
        head = {
            "classifier.dense.weight": torch.randn(width, width) / width**0.5,
            "classifier.dense.bias": torch.zeros(width),
            "classifier.out_proj.weight": torch.randn(len(AFFECT), width) / width**0.5,
            "classifier.out_proj.bias": torch.full((len(AFFECT),), 0.5),
        }
    tensors = {f"wav2vec2.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors | head, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    taken = {"do_normalize": True, "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(taken), encoding="utf-8")


class WorkCounter:
    """Counts the operations of a model of the same shape, on tensors without contents.

    Multiplications and additions of convolutions, matrix products and attention, as
    `torch.utils.flop_counter` counts them: a multiply-add is two.
    """

    def __init__(self, model: Any) -> None:
        import torch

        self._torch = torch
        with torch.device("meta"):
            self._model = type(model)(model.config).eval()

    def whole(self) -> float:
        """GFLOP of one pass over 12 s."""
        from emi_models.encoders.wav2vec import PIECE_SAMPLES

        return self._count(lambda: self._model(self._torch.empty(1, PIECE_SAMPLES, device="meta")))

    def step(self, setting: StreamSetting) -> float:
        """GFLOP of one step with a full left context."""
        from emi_models.encoders.wav2vec import HOP_SAMPLES, OVERLAP_SAMPLES
        from emi_models.encoders.wav2vec_stream import CachedLayers

        torch = self._torch
        new, left, edge = setting.frames
        with torch.device("meta"):
            samples = torch.empty(1, new * HOP_SAMPLES + OVERLAP_SAMPLES)
            context = torch.empty(1, left + edge, self._model.config.hidden_size)

        def run() -> None:
            states = self._model.feature_extractor(samples).transpose(1, 2)
            projected = self._model.feature_projection(states)
            frames = projected[0] if isinstance(projected, tuple) else projected
            if setting.strategy == "recompute":
                self._model.encoder(torch.cat((context, frames), dim=1))
                return
            with torch.device("meta"):
                layers = CachedLayers(self._model, new=new, edge=edge, left=left)
                present = torch.ones(layers.slots, dtype=torch.bool)
            layers(frames[0], present)

        return self._count(run)

    def _count(self, run: Callable[[], object]) -> float:
        from torch.utils.flop_counter import FlopCounterMode

        with self._torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        return float(counter.get_total_flops()) / 1e9


class DriftProgress(Protocol):
    """Gets the progress of the measurement."""

    def __call__(self, what: str, done: int, of: int) -> None:
        """`done` of `of` parts are done, and `what` is next."""


def measure_drift(
    voice_model: VoiceModel,
    network: IntensityNetwork,
    clips: Sequence[tuple[str, NDArray[np.float32]]],
    settings: Sequence[StreamSetting],
    progress: DriftProgress,
) -> DriftBenchReport:
    """Stream every clip in every way, and compare with `Wav2vecEncoder.encode` of the whole clip.

    Once a second and at the end, the network gets the voice that is final by then, and no other modality:
    once as streamed and once as in the whole pass, so only the features differ.

    Args:
        voice_model: its features are compared.
        network: gives the intensities that are compared.
        clips: names, and samples (n,) at 16 kHz, of 25 ms or more; at least one.
        settings: the ways.
        progress: called before each clip.
    """
    import torch

    load_before = load_average()
    total = 1 + len(clips) * (1 + len(settings))
    progress("one pass over 12 s", 0, total)
    work = WorkCounter(voice_model.encoder.model)
    whole = WholePass(gflop=work.whole(), ms=_time_whole(voice_model))
    references = []
    for done, (name, samples) in enumerate(clips, 1):
        progress(f"{name}, in one pass", done, total)
        references.append(voice_model.encoder.encode(samples))
    cells: list[StreamResult] = []
    interrupted = False
    try:
        for setting in settings:
            run = _StreamRun(voice_model, network, setting)
            for (name, samples), reference in zip(clips, references, strict=True):
                done = 1 + len(clips) * (1 + len(cells)) + run.clips
                progress(f"{name}, hop {setting.hop_s:g} s, left {setting.left_s:g} s", done, total)
                run.stream(samples, reference)
            cells.append(run.cell(work.step(setting) / setting.hop_s))
    except KeyboardInterrupt:
        interrupted = True
    report = DriftBenchReport(
        machine=Machine.here(),
        load_before=load_before,
        torch_threads=torch.get_num_threads(),
        model=voice_model.what,
        random_model=voice_model.random,
        normalises=voice_model.encoder.normalises,
        network=network.what,
        random_network=network.random,
        clips=[DriftClip(name, samples.size / RATE_HZ) for name, samples in clips],
        whole=whole,
        cells=cells,
    )
    if interrupted:
        raise Interrupted(report)
    return report


class _StreamRun:
    """One way to stream, over the clips."""

    def __init__(self, voice_model: VoiceModel, network: IntensityNetwork, setting: StreamSetting) -> None:
        self._stream = StreamingWav2vec(
            voice_model.encoder,
            hop_s=setting.hop_s,
            left_context_s=setting.left_s,
            hold_back_s=setting.hold_s,
            strategy=setting.strategy,
        )
        self._network = network
        self._setting = setting
        self._cosines: list[NDArray[np.float64]] = []
        self._found: list[NDArray[np.float32]] = []  # intensities of each window, (6,)
        self._expected: list[NDArray[np.float32]] = []
        self._steps_ms: list[float] = []
        self._busy_s = self._audio_s = 0.0
        self.clips = 0
        hop = round(setting.hop_s * RATE_HZ)
        self._stream.push(np.random.default_rng(0).normal(0, 0.1, 3 * hop).astype(np.float32))  # warm-up

    def stream(self, samples: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
        """Stream one clip, and compare with its features in one pass."""
        self._stream.reset()
        hop = round(self._setting.hop_s * RATE_HZ)
        found = reference[:0]
        asked = 0
        for start in range(0, samples.size, hop):
            before = perf_counter()
            fresh = self._stream.push(samples[start : start + hop])
            took = perf_counter() - before
            self._busy_s += took
            if start >= hop:  # the grid is 5 ms late, so the first hop alone makes no step
                self._steps_ms.append(1e3 * took)
            found = np.concatenate((found, fresh))
            if len(found) - asked >= FRAMES_A_SECOND:
                asked = len(found)
                self._ask(found, reference)
        before = perf_counter()
        rest = self._stream.flush()
        self._busy_s += perf_counter() - before
        found = np.concatenate((found, rest))
        self._ask(found, reference)
        self._cosines.append(frame_cosines(found, reference))
        self._audio_s += samples.size / RATE_HZ
        self.clips += 1

    def cell(self, gflop_per_s: float) -> StreamResult:
        """The result."""
        return StreamResult(
            setting=self._setting,
            latency_s=self._setting.latency_s,
            features=compare_features(np.concatenate(self._cosines)),
            intensities=compare_intensities(np.stack(self._found), np.stack(self._expected)),
            gflop_per_s=gflop_per_s,
            steps_ms=Distribution.of(self._steps_ms),
            real_time_factor=self._busy_s / self._audio_s,
        )

    def _ask(self, found: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
        """Run the network on all frames so far, as streamed and as in the whole pass."""
        self._found.append(self._intensities(found))
        self._expected.append(self._intensities(reference[: len(found)]))

    def _intensities(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        from emi_models.inputs import FusionInputs

        module: Any = self._network.network
        window: FusionInputs = FusionInputs.empty(module.config.shapes)
        shown = frames[-max(1, round(self._network.span_s * FRAMES_A_SECOND)) :]
        with torch.inference_mode():
            answer: NDArray[np.float32] = module(with_voice(window, shown))[0].numpy()
        return answer


def _time_whole(voice_model: VoiceModel) -> Distribution | None:
    noise = np.random.default_rng(0).normal(0, 0.1, PIECE_SAMPLES).astype(np.float32)
    times = []
    for _ in range(1 + WHOLE_PASSES):
        before = perf_counter()
        voice_model.encoder.encode(noise)
        times.append(1e3 * (perf_counter() - before))
    return Distribution.of(times[1:])
