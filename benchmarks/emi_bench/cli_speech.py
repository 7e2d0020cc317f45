"""The commands about speech: `emi bench drift`, the live voice's features; `emi bench speech`, the words."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emi_bench.harness import JsonFile, Settings, check_json, progress_bar
from emi_bench.report import give_report, keep_if_interrupted, read_report, write_report
from emi_live.errors import ConfigurationError
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["drift", "speech"]

DRIFT_CLIPS: Final = ("jfk.flac", "librivox_sense_0870.wav", "LJ001-0006.wav", "LJ001-0004.wav")
DRIFT_HOPS_S: Final = (0.2, 0.5, 1.0)
DRIFT_LEFTS_S: Final = (1.0, 3.0, 6.0)
DRIFT_HOLDS_S: Final = (0.0, 0.24)
FRAME_S: Final = 0.02


def drift(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Recordings of speech, any media file. Default: four clips of EMI_TEST_ASSETS or --assets, "
            "29 s of read and public speech."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A folder with wav2vec 2.0, HuBERT or WavLM in transformers' format, as `emi models pull` "
            "or `hf download` make it; or random-large (audeering's shape) or random-small: seeded random "
            "weights, whose work and time are real but whose drift is not that of a trained model."
        ),
    ] = "random-small",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint that was trained on the model's features, for the six intensities. Default: "
            "TAEMI with seeded random weights, which says little."
        ),
    ] = None,
    hop: Annotated[list[float] | None, typer.Option(help="Seconds between steps; may be repeated.")] = None,
    left: Annotated[
        list[float] | None,
        typer.Option(help="Seconds of the past that a step attends to; may be repeated."),
    ] = None,
    hold: Annotated[
        list[float] | None,
        typer.Option(help="Seconds of sound that a frame waits for before it is final; may be repeated."),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="cached: keys and values of the past are kept. recompute: every step computes it again. "
            "May be repeated. Default: cached."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="For PyTorch. Default: its own.")] = None,
    assets: Annotated[Path | None, typer.Option(help="Folder of the test media, with speech/ in it.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A minute: one hop, one past, and without clips given, two clips."),
    ] = False,
    json_: JsonFile = None,
) -> None:
    """How far is the voice of a live stream from one pass over the whole clip? By hop, context and waiting.

    wav2vec 2.0 looks at 12 s in both directions. Live, each frame is computed
    once, from kept keys and values of the past and a limited part of the future.
    This measures what that changes; no labels are needed.

    For example:

    [bold]emi bench drift --quick[/bold]

    [bold]emi bench drift --model wav2vec2-emotion/ --checkpoint mine.safetensors[/bold]

    [bold]emi bench drift talk.wav --hop 0.5 --left 3 --hold 0 --hold 0.24[/bold]

    [bold]emi bench drift --model random-large --json drift.json[/bold]
    """
    require("torch", "transformers", extra="taemi", what="emi bench drift")
    check_json(json_)
    strategies = strategy or ["cached"]
    hops = hop or (DRIFT_HOPS_S[1:2] if quick else DRIFT_HOPS_S)
    lefts = left or (DRIFT_LEFTS_S[1:2] if quick else DRIFT_LEFTS_S)
    holds = hold or DRIFT_HOLDS_S
    _check_grid(strategies, hops, lefts, holds)
    paths = clips or _drift_clips(assets)[: 2 if quick else None]

    import torch

    from emi_bench.drift import measure_drift, open_network, open_voice_model, read_clips
    from emi_bench.drift_report import StreamSetting

    settings = [
        StreamSetting("cached" if name == "cached" else "recompute", hop_s, left_s, hold_s)
        for name in strategies
        for hop_s in hops
        for left_s in lefts
        for hold_s in holds
    ]
    sounds = read_clips(paths)
    if threads is not None:
        torch.set_num_threads(threads)
    with (
        keep_if_interrupted(json_),
        TemporaryDirectory(prefix="emi-drift-") as scratch,
        progress_bar() as bar,
    ):
        voice_model = open_voice_model(model, Path(scratch))
        network = open_network(checkpoint, voice_model)
        report = measure_drift(voice_model, network, sounds, settings, bar.show)
    give_report(json_, report)


def _check_grid(
    strategy: Sequence[str], hop: Sequence[float], left: Sequence[float], hold: Sequence[float]
) -> None:
    for name, values, least in (("hop", hop, FRAME_S), ("left", left, 0.0), ("hold", hold, 0.0)):
        for value in values:
            if not least <= value <= 60.0 or abs(value / FRAME_S - round(value / FRAME_S)) > 1e-6:
                raise ConfigurationError(
                    f"--{name} {value:g} is not a whole number of frames of 20 ms, {least:g} to 60 s"
                )
    for each in strategy:
        if each not in ("cached", "recompute"):
            raise ConfigurationError(f"--strategy {each} is not one of cached, recompute")


def _drift_clips(assets: Path | None) -> list[Path]:
    from emi_bench.speech.clips import speech_assets

    folder = speech_assets() if assets is None else assets / "speech"
    missing = [name for name in DRIFT_CLIPS if not (folder / name).is_file()]
    if missing:
        raise ConfigurationError(f"{folder} lacks {', '.join(missing)}; name recordings of your own")
    return [folder / name for name in DRIFT_CLIPS]


def speech(
    model: Annotated[
        str | None,
        typer.Option(
            help="A Whisper model of `emi models list`, downloaded if needed, or a folder in CTranslate2's "
            "format, e.g. of large-v3-turbo. Default: that of emi-live."
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="whisper or pocketsphinx. Default: that of emi-live.")
    ] = None,
    clips: Annotated[
        list[str] | None,
        typer.Option(
            help="real (read speech of EMI_TEST_ASSETS), prompts or prompts-nonstop (its spoken prompts as "
            "talks, with and without pauses), synthetic (eSpeak NG, with true times of words), or "
            "a folder with NAME.wav and NAME.txt; may be repeated. Default: synthetic, unless another "
            "measurement is asked for."
        ),
    ] = None,
    clock: Annotated[
        list[str] | None,
        typer.Option(
            help="unaware: computing takes no time; what is left is the policy's own wait. aware: computing "
            "takes time, on a simulated clock that skips waiting. real: the real clock. May be repeated. "
            "Default: unaware and aware."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=1.5,
            help="Length of one synthetic monologue: does the lag grow? With --clips prompts or "
            "prompts-nonstop: of one talk of all the prompts, from the first again after the last.",
        ),
    ] = None,
    nonstop: Annotated[
        bool, typer.Option("--nonstop", help="No pause in the monologue is long enough to end an utterance.")
    ] = False,
    conditions: Annotated[
        bool,
        typer.Option(
            "--conditions", help="Silence, noise, music, other languages, two speakers, a telephone."
        ),
    ] = False,
    condition_minutes: Annotated[
        float, typer.Option(min=0.1, help="Of silence, noise and music each.")
    ] = 5.0,
    face_clip: Annotated[
        Path | None,
        typer.Option(
            help="Play this clip through the whole engine, with words and without: do faces wait for words?"
        ),
    ] = None,
    face_turns: Annotated[int, typer.Option(min=1, help="How often, each way.")] = 2,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure another program too, with the same weights and clips, at real pace, one after the "
            "other: whisperlivekit, or one of its policies, whisperlivekit:localagreement or "
            "whisperlivekit:simulstreaming; may be repeated. It is installed with uv into an environment of "
            "its own. --minutes is the length of a talk of the spoken prompts. Default of --clips: real, "
            "or none with --minutes."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="With --peer: keep what the file of --json has, measure the rest."),
    ] = False,
    set_: Settings = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two minutes: one clip of each kind, by one clock.")
    ] = False,
    json_: JsonFile = None,
) -> None:
    """How good are the words, and how late? The speech stage on clips whose words and times are known.

    [bold]WER[/bold]: word error rate of the committed words; with that of the same
    recogniser on the clip in one piece.

    [bold]first shown, committed[/bold]: ms from the end of a word until it was shown,
    and until it was committed; of words that were recognised rightly.

    [bold]erasure[/bold]: words shown and taken back, for each committed word.

    [bold]RTF[/bold]: share of the time that the stage works; above 1 it cannot keep up.

    For example:

    [bold]emi bench speech --quick[/bold]

    [bold]emi bench speech --backend pocketsphinx --clips real[/bold]

    [bold]emi bench speech --model turbo/ --clips talks/ --json turbo.json[/bold]

    [bold]emi bench speech --minutes 30 --clock aware[/bold] (does the lag grow?)

    [bold]emi bench speech --clips prompts --minutes 10 --clock aware[/bold] (the same, real speech)

    [bold]emi bench speech --peer whisperlivekit --clips real --minutes 10 --json peers.json[/bold]
    """
    check_json(json_)
    if peer:
        odd = {"--clock": clock, "--backend": backend, "--conditions": conditions, "--face-clip": face_clip}
        if given := [name for name, value in odd.items() if value]:
            raise ConfigurationError(f"--peer does not go with {given[0]}: it runs Whisper at real pace")
        _beside_peers(
            peer, model, clips, minutes, set_ or [], json_, nonstop=nonstop, resume=resume, quick=quick
        )
        return
    if resume:
        raise ConfigurationError("--resume is for --peer; leave it out")
    from rich.console import Console

    from emi_bench.speech.run import make_settings, measure_speech
    from emi_live.cli.options import download_bar

    settings = make_settings(
        model=model,
        backend=backend,
        clips=clips,
        clocks=clock or (["aware"] if quick else None),
        minutes=minutes,
        nonstop=nonstop,
        condition_s=60 * condition_minutes if conditions else None,
        face_clip=face_clip,
        face_turns=face_turns,
        settings=set_ or (),
        most_clips=1 if quick else None,
    )
    with (
        keep_if_interrupted(json_),
        download_bar(Console(stderr=True)) as download,
        progress_bar() as bar,
    ):
        report = measure_speech(settings, bar.show, download)
    give_report(json_, report)


def _beside_peers(
    peers: list[str],
    model: str | None,
    sets: list[str] | None,
    minutes: float | None,
    settings: list[str],
    json_: str | None,
    *,
    nonstop: bool,
    resume: bool,
    quick: bool,
) -> None:
    """Our recogniser and its peers."""
    from rich.console import Console

    from emi_bench.speech.clips import TAIL_S
    from emi_bench.speech.peer_report import PeerReport
    from emi_bench.speech.peers import (
        check_peers,
        compare,
        peer_clips,
        peer_contenders,
        peer_environment,
        whisper_folder,
    )
    from emi_live.cli.options import download_bar

    names = check_peers(peers)
    if nonstop and minutes is None:
        raise ConfigurationError("--nonstop needs a talk; give its length with --minutes, e.g. --minutes 5")
    before = None
    if resume:
        if json_ in (None, "-"):
            raise ConfigurationError("--resume needs the file of the run before; name it with --json FILE")
        if Path(json_).is_file():
            found = read_report(Path(json_))
            if not isinstance(found, PeerReport):
                raise ConfigurationError(f"--resume: {json_} is not a report of --peer; name another file")
            before = found
    file = None if json_ == "-" else json_
    with (
        keep_if_interrupted(json_),
        download_bar(Console(stderr=True)) as download,
        progress_bar() as bar,
        TemporaryDirectory(prefix="emi-peer-") as scratch,
    ):
        weights, folder = whisper_folder(model, settings, download)
        if before is not None and before.weights != weights:
            raise ConfigurationError(
                f"--resume: {json_} was measured with {before.weights}, not {weights}; name another file"
            )
        bar.show("reading clips", 0.0, None)
        clips = peer_clips(
            sets or ([] if minutes else ["real"]), minutes, nonstop=nonstop, most=1 if quick else None
        )
        pythons = {
            name: peer_environment(name, bar.say, lambda line: bar.show(line, 0.0, None)) for name in names
        }
        contenders = peer_contenders(peers, pythons, folder, settings, Path(scratch))
        sound_s = sum(clip.seconds + TAIL_S for clip in clips) * len(contenders)
        bar.say(f"{len(contenders)} systems, {len(clips)} clips each: at least {sound_s / 60:.0f} minutes")
        report = compare(
            contenders,
            clips,
            weights,
            before=before,
            keep=lambda so_far: write_report(file, so_far),
            progress=bar.show,
        )
    give_report(json_, report)
