"""A system under test, ours or a peer, in its own process and run by the Python of its own environment.

`peer_worker.py POLICY MODEL SCRATCH` runs a peer. It needs nothing of emi-live: only the standard library,
and WhisperLiveKit with what that installs. `peer_worker.py emi-live MODEL NAME=VALUE …` runs our speech stage
by the real clock, with the recogniser in another process, as in live use.

Both read one JSON object a line, {"samples": PATH}, raw 16-bit samples at 16 kHz, and play that file at real
pace. They write one JSON object a line: `emi_bench.speech.peers` says which. Each block is given when its
last sample would have been captured, not before, as a microphone does it.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import struct
import sys
import time
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RATE_HZ = 16_000
BLOCK_SAMPLES = 640  # 40 ms, the size of the peer's own voice detection
FINISH_S = 180.0  # after the last sample; the words of a peer that needs longer are cut off there
HEAD_SIZE = 64  # of every Whisper
OURS = "emi-live"  # in place of a policy
PACKAGES = ("whisperlivekit", "faster-whisper", "ctranslate2", "torch", "onnxruntime")
OUR_PACKAGES = ("emi-live", "ctranslate2", "onnxruntime")
OUR_SETTINGS = ("backend", "language", "compute_type", "threads", "partial_every_s", "commit")
# Of the peer's settings, those that matter to the words; the others belong to its server and other models.
SETTINGS = {
    "localagreement": ("buffer_trimming", "buffer_trimming_sec", "confidence_validation"),
    "simulstreaming": ("frame_threshold", "beams", "audio_max_len", "audio_min_len", "never_fire"),
    "": ("backend_policy", "backend", "lan", "min_chunk_size", "vac", "vac_chunk_size"),
}


class Changes:
    """Writes texts as changes from the text before, so that a long talk does not become many megabytes."""

    def __init__(self, say: Any) -> None:
        """Write with `say`."""
        self._say = say
        self._before = ["", ""]
        self.start = time.monotonic()

    def show(self, committed: str, partial: str, at_s: float | None = None) -> None:
        """Write what is shown now, or was at `at_s`, if it has changed."""
        now = [committed, partial]
        if now != self._before:
            pairs = zip(self._before, now, strict=True)
            changes = [part for pair in pairs for part in change(*pair)]
            at_s = time.monotonic() - self.start if at_s is None else at_s
            self._say({"event": "show", "at_s": at_s, "changes": changes})
            self._before = now


def change(before: str, now: str) -> tuple[int, str]:
    """How many characters stay, and the text after them."""
    kept = len(os.path.commonprefix([before, now]))  # noqa: RUF071  # of characters, as wanted here
    return kept, now[kept:]


def main() -> None:
    """Load, then play each file that is asked for."""
    policy, model, *rest = sys.argv[1:]
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the system prints is not for the bench

    def say(line: dict[str, Any]) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    if policy == OURS:
        run_ours(model, rest, say)
    else:
        run_peer(policy, Path(model), Path(rest[0]), say)


def run_ours(model: str, settings: list[str], say: Any) -> None:
    """Say `ready`, then one `end` for each clip, with our own stage and recogniser."""
    # Not imported above: a peer's environment has nothing of emi-live.
    import numpy as np

    from emi_bench.speech.playback import (
        Playback,
        RealClock,
        WatchedRecognizer,
        load_recognizers,
        play_through,
        prepare,
    )
    from emi_bench.speech.scoring import displays
    from emi_live.config import load_config
    from emi_live.health import Health
    from emi_live.stages.speech import SpeechStage
    from emi_models.encoders.voice_activity import VoiceGate

    speech = {"backend": "whisper", "model": model}
    config = load_config(settings=settings, overrides={"mode": "live", "speech": speech})
    encoders = load_recognizers(config)
    try:
        recognizer = encoders.recognizer
        assert recognizer is not None  # noqa: S101  # load_recognizers has raised otherwise
        found = config.speech.model_dump(mode="json")
        in_force = {name: str(found[name]) for name in OUR_SETTINGS}
        in_force["agreement"] = str(recognizer.agreement)
        say({"event": "ready", "settings": in_force, "versions": versions(OUR_PACKAGES)})
        for line in sys.stdin:
            pcm = np.fromfile(Path(json.loads(line)["samples"]), np.int16)
            prepare(recognizer)
            clock = RealClock()
            play = Playback(pcm.astype(np.float32) / 32768.0, clock)
            watched = WatchedRecognizer(recognizer, play.tick)
            stage = SpeechStage(
                play.reader, VoiceGate(), watched, config.speech, exact=False, health=Health()
            )
            done = play_through(stage, play)
            stage.close()
            changes = Changes(say)
            for shown in displays(done.shown):
                changes.show(shown.committed, shown.partial, shown.at_s)
            say({"event": "end", "at_s": clock.now_ns() / 1e9, "behind_s": 0.0, "finished": True})
    finally:
        encoders.close()


def run_peer(policy: str, model: Path, scratch: Path, say: Any) -> None:
    """Load the peer with the policy, then play each file that is asked for."""
    options = {
        "backend_policy": policy,
        "lan": "en",
        "warmup_file": "",  # the bench plays a clip first
        "pcm_input": True,
    }
    if policy == "simulstreaming":
        # Its decoder is PyTorch's, its encoder CTranslate2's: the same weights in both formats.
        options |= {"encoder_model_path": str(model), "backend": "faster-whisper"}
        options["model_path"] = str(as_pytorch(model, scratch))
        options["custom_alignment_heads"] = alignment_heads(model)
    else:
        options |= {"model_path": str(model), "backend": "faster-whisper"}
    asyncio.run(serve(options, policy, say))


async def serve(options: dict[str, Any], policy: str, say: Any) -> None:
    """Say `ready`, then one `end` for each clip."""
    # Not imported by name: nothing of this is installed where emi-live is.
    engine_class = import_module("whisperlivekit.core").TranscriptionEngine
    harness_class = import_module("whisperlivekit.test_harness").TestHarness

    async with harness_class(**options):
        pass  # the model is loaded, and kept by the harness
    engine = engine_class()
    say({"event": "ready", "settings": settings_of(engine, policy), "versions": versions(PACKAGES)})
    while line := await asyncio.to_thread(sys.stdin.readline):
        pcm = Path(json.loads(line)["samples"]).read_bytes()
        async with harness_class(**options) as harness:
            changes = Changes(say)
            harness.on_update(partial(show_state, changes))
            behind_s = await feed(harness, pcm, changes.start)
            over = time.monotonic()
            await harness.finish(timeout=FINISH_S)
            finished = time.monotonic() - over < FINISH_S
            show_state(changes, harness.state)
            end_s = time.monotonic() - changes.start
            say({"event": "end", "at_s": end_s, "behind_s": behind_s, "finished": finished})


def show_state(changes: Changes, state: Any) -> None:
    """Write what the harness has now."""
    changes.show(state.committed_text, state.buffer_transcription)


async def feed(harness: Any, pcm: bytes, start: float) -> float:
    """Give the sound at real pace; the most that a block was given too late, in seconds."""
    behind_s, size = 0.0, 2 * BLOCK_SAMPLES
    for offset in range(0, len(pcm), size):
        block = pcm[offset : offset + size]
        due = start + (offset + len(block)) / 2 / RATE_HZ
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        behind_s = max(behind_s, time.monotonic() - due)
        await harness.feed_pcm(block, speed=0, chunk_duration=len(block) / 2 / RATE_HZ)
    return behind_s


def settings_of(engine: Any, policy: str) -> dict[str, str]:
    """The settings in force, as text."""
    found = {name: str(getattr(engine.config, name)) for name in (*SETTINGS[""], *SETTINGS[policy])}
    model: Any = getattr(engine.asr, "fw_encoder", None) or getattr(engine.asr, "model", None)
    if hasattr(model, "model"):
        found["compute_type"] = str(model.model.compute_type)
    if policy == "localagreement":
        found["beam_size"] = "5"  # written into FasterWhisperASR.transcribe
    else:
        found["decoder"] = "PyTorch"
    found["block_ms"] = str(1000 * BLOCK_SAMPLES // RATE_HZ)
    return found


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Of the packages that do the work."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def as_pytorch(model: Path, scratch: Path) -> Path:
    """The weights of a CTranslate2 folder as a checkpoint of openai-whisper: AlignAtt needs one.

    Every number is the one in model.bin; a key projection has no bias there, and the fused matrices of
    queries, keys and values are cut into three.
    """
    import numpy as np
    import torch

    found = read_ctranslate2(model / "model.bin")
    state = {}
    for side in ("encoder", "decoder"):
        state[f"{side}.positional_embedding"] = found[f"{side}/position_encodings/encodings"]
        final = "ln_post" if side == "encoder" else "ln"
        norm(state, found, f"{side}.{final}", f"{side}/layer_norm")
        index = 0
        while f"{side}/layer_{index}/ffn/linear_0/weight" in found:
            layer(state, found, side, index, np)
            index += 1
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            state[f"encoder.{name}.{kind}"] = found[f"encoder/{name}/{kind}"]
    state["decoder.token_embedding.weight"] = found["decoder/embeddings/weight"]
    width = state["decoder.token_embedding.weight"].shape
    layers = {
        side: sum(f"{side}.blocks" in name and "mlp_ln.bias" in name for name in state)
        for side in ("encoder", "decoder")
    }
    heads = width[1] // HEAD_SIZE
    dims = {
        "n_mels": state["encoder.conv1.weight"].shape[1],
        "n_audio_ctx": state["encoder.positional_embedding"].shape[0],
        "n_audio_state": width[1],
        "n_audio_head": heads,
        "n_audio_layer": layers["encoder"],
        "n_vocab": width[0],
        "n_text_ctx": state["decoder.positional_embedding"].shape[0],
        "n_text_state": width[1],
        "n_text_head": heads,
        "n_text_layer": layers["decoder"],
    }
    tensors = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in state.items()}
    path = scratch / "base.pt"
    torch.save({"dims": dims, "model_state_dict": tensors}, path)
    return path


def alignment_heads(model: Path) -> str:
    """The attention heads that give the times, as the peer takes them: a mask, compressed, as text.

    The peer knows them by the name of OpenAI's file only; without them it would use half of all heads.
    """
    heads = json.loads((model / "config.json").read_text(encoding="utf-8"))["alignment_heads"]
    found = read_ctranslate2(model / "model.bin")
    layers = sum(name.startswith("decoder/") and name.endswith("ffn/linear_0/bias") for name in found)
    each = found["decoder/embeddings/weight"].shape[1] // HEAD_SIZE
    mask = bytes([layer, head] in heads for layer in range(layers) for head in range(each))
    return base64.b85encode(gzip.compress(mask)).decode()


def read_ctranslate2(path: Path) -> dict[str, Any]:
    """The arrays of a model.bin by name. Source: CTranslate2, python/ctranslate2/specs/model_spec.py."""
    import numpy as np

    kinds = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
    with path.open("rb") as file:

        def take(form: str) -> int:
            value: int = struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))[0]
            return value

        def text() -> str:
            return file.read(take("H"))[:-1].decode()

        found = {}
        take("I"), text(), take("I")
        for _ in range(take("I")):
            name, rank = text(), take("B")
            shape = [take("I") for _ in range(rank)]
            kind, size = take("B"), take("I")
            found[name] = np.frombuffer(file.read(size), kinds[kind]).reshape(shape)
        for _ in range(take("I")):
            name, target = text(), text()
            found[name] = found[target]
    return found


def layer(state: dict[str, Any], found: dict[str, Any], side: str, index: int, np: Any) -> None:
    """One block of the encoder or the decoder."""
    own, theirs = f"{side}.blocks.{index}", f"{side}/layer_{index}"
    norm(state, found, f"{own}.attn_ln", f"{theirs}/self_attention/layer_norm")
    attention(
        state, found, f"{own}.attn", f"{theirs}/self_attention", (("query", "key", "value"), ("out",)), np
    )
    if side == "decoder":
        norm(state, found, f"{own}.cross_attn_ln", f"{theirs}/attention/layer_norm")
        attention(
            state,
            found,
            f"{own}.cross_attn",
            f"{theirs}/attention",
            (("query",), ("key", "value"), ("out",)),
            np,
        )
    norm(state, found, f"{own}.mlp_ln", f"{theirs}/ffn/layer_norm")
    for place, name in ((0, "mlp.0"), (1, "mlp.2")):
        for kind in ("weight", "bias"):
            state[f"{own}.{name}.{kind}"] = found[f"{theirs}/ffn/linear_{place}/{kind}"]


def attention(
    state: dict[str, Any],
    found: dict[str, Any],
    own: str,
    theirs: str,
    groups: tuple[tuple[str, ...], ...],
    np: Any,
) -> None:
    """The matrices of one attention; each group of names is one fused matrix."""
    for index, names in enumerate(groups):
        for kind in ("weight", "bias"):
            parts = np.split(found[f"{theirs}/linear_{index}/{kind}"], len(names))
            for name, part in zip(names, parts, strict=True):
                if (name, kind) != ("key", "bias"):
                    state[f"{own}.{name}.{kind}"] = part


def norm(state: dict[str, Any], found: dict[str, Any], own: str, theirs: str) -> None:
    """One layer normalisation."""
    state[f"{own}.weight"], state[f"{own}.bias"] = found[f"{theirs}/gamma"], found[f"{theirs}/beta"]


if __name__ == "__main__":
    main()
