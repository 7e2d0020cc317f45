"""`emi bench`: measure emi-live on this machine. The options of all benchmarks are here."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from emi_bench.fusion.settings import FusionSettings, SettingsError
from emi_bench.report_file import keep_if_interrupted, write_report
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import Progress, TaskID

    from emi_bench.report_file import BenchReport
    from emi_bench.systems.report import TrainingRun
    from emi_live import Estimate

__all__ = ["app"]

DRIFT_CLIPS: Final = ("jfk.flac", "librivox_sense_0870.wav", "LJ001-0006.wav", "LJ001-0004.wav")
DRIFT_HOPS_S: Final = (0.2, 0.5, 1.0)
DRIFT_LEFTS_S: Final = (1.0, 3.0, 6.0)
DRIFT_HOLDS_S: Final = (0.0, 0.24)
FRAME_S: Final = 0.02
FLASH_BEEP_S: Final = 60.0  # about 50 onsets at the default hop
QUICK_LIVE_S: Final = 25.0
QUICK_PACKETS: Final = 1_000
QUICK_FLOOD_S: Final = 0.5
QUICK_VARIANTS: Final = ("taemi", "two_stage", "dual_stage", "semantic_matters")
DEFAULT: Final = FusionSettings()

JsonFile = Annotated[
    str | None,
    typer.Option("--json", help="Write the report to this file as JSON; - for standard output."),
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Any setting of emi-live, NAME=VALUE.")]

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def bench(context: typer.Context) -> None:
    """Measure emi-live on this machine. Every report names the machine, the versions and n.

    With [bold]--quick[/bold] each takes two minutes at most on two cores.

    For example:

    [bold]emi bench fusion --quick[/bold] (how fast is each engine?)

    [bold]emi bench live --quick[/bold] (how fresh are the estimates?)

    [bold]emi bench bus --json bus.json[/bold], then [bold]emi bench report bus.json[/bold] (a page)
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def bus(
    transport: Annotated[
        list[str] | None,
        typer.Option("--transport", help="inproc, ipc, tcp or tcp+curve; may be repeated. Default: all."),
    ] = None,
    n: Annotated[int, typer.Option(min=100, help="Timed packets in each case.")] = 10_000,
    flood: Annotated[float, typer.Option(min=0.0, help="Seconds of a flood over each; 0 for none.")] = 2.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute: a tenth of the packets, half a second of flood.")
    ] = False,
    json_: JsonFile = None,
) -> None:
    """How long does a packet take over the bus? By transport and size, and how many go through.

    For example: [bold]emi bench bus --quick[/bold] or
    [bold]emi bench bus --transport inproc --transport ipc[/bold]
    """
    from emi_bench.bus.measure import TRANSPORTS, measure_bus

    wanted = list(dict.fromkeys(transport or TRANSPORTS))
    if unknown := [name for name in wanted if name not in TRANSPORTS]:
        raise ConfigurationError(f"--transport {unknown[0]} is not one of {', '.join(TRANSPORTS)}")
    _check_json(json_)
    if quick:
        n, flood = min(n, QUICK_PACKETS), min(flood, QUICK_FLOOD_S)
    with keep_if_interrupted(json_), _bar() as bar:
        report = measure_bus(wanted, n, flood, bar.show)
    _give(report, json_)


@app.command()
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
    _check_json(json_)
    strategies = strategy or ["cached"]
    hops = hop or (DRIFT_HOPS_S[1:2] if quick else DRIFT_HOPS_S)
    lefts = left or (DRIFT_LEFTS_S[1:2] if quick else DRIFT_LEFTS_S)
    holds = hold or DRIFT_HOLDS_S
    _check_grid(strategies, hops, lefts, holds)
    paths = clips or _drift_clips(assets)[: 2 if quick else None]

    import torch

    from emi_bench.drift.measure import measure_drift, open_network, open_voice_model, read_clips
    from emi_bench.drift.report import StreamSetting

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
        _bar() as bar,
    ):
        voice_model = open_voice_model(model, Path(scratch))
        network = open_network(checkpoint, voice_model)
        report = measure_drift(voice_model, network, sounds, settings, bar.show)
    _give(report, json_)


@app.command()
def fusion(
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="An engine's name; may be repeated. Default: all.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", help="compact, compact-12s or taemi; may be repeated. Default: all."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Measure this checkpoint in place of the networks.")
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", help="Windows in a call; may be repeated. Default: 1, 4, 16, 64."),
    ] = None,
    n: Annotated[int, typer.Option(help="Timed calls of each engine and case.")] = DEFAULT.n,
    gap_s: Annotated[
        float, typer.Option(help="Idle seconds before each sparse call; 0: none.")
    ] = DEFAULT.gap_s,
    budget_s: Annotated[float, typer.Option(help="Seconds of work a case, without gaps.")] = DEFAULT.budget_s,
    parity_windows: Annotated[int, typer.Option(help="Random windows to compare.")] = DEFAULT.parity_windows,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Only this device. Default: all that there are.")
    ] = None,
    torch_threads: Annotated[int | None, typer.Option(help="PyTorch's threads. Default: its own.")] = None,
    streams: Annotated[bool, typer.Option(help="Measure streams too, hop by hop, as in live use.")] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes: small batches, few calls, no torch.compile.")
    ] = False,
    json_: JsonFile = None,
) -> None:
    """How fast is each fusion engine here, is it exact, and how far is it from the machine's limit?

    For example: [bold]emi bench fusion --quick[/bold] or
    [bold]emi bench fusion --engine onnxruntime-cpu-1t --network taemi --batch 1[/bold]
    """
    from emi_bench.fusion.__main__ import bench_fusion

    settings = FusionSettings(
        engines=tuple(engine or ()),
        networks=tuple(network or ()),
        checkpoint=checkpoint,
        batches=tuple(batch or DEFAULT.batches),
        n=n,
        gap_s=gap_s,
        budget_s=budget_s,
        parity_windows=parity_windows,
        device=device,
        torch_threads=torch_threads,
        streams=streams,
        quick=quick,
    )
    try:
        bench_fusion(settings, json_)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error


@app.command()
def live(
    input_: Annotated[
        Path | None, typer.Option("--input", help="A media file, played at its own pace.")
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Camera index, path or URL.")] = None,
    mic: Annotated[str | None, typer.Option(help="Microphone; 'none' for no sound.")] = None,
    flash_beep: Annotated[
        bool,
        typer.Option("--flash-beep", help="Generated light and sound in a code: how long until they show?"),
    ] = False,
    duration: Annotated[
        float | None, typer.Option(min=1.0, help="Stop after this many seconds; 60 for --flash-beep.")
    ] = None,
    set_: Settings = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Half a minute; with --flash-beep, unless a source is named.")
    ] = False,
    json_: JsonFile = None,
) -> None:
    """How fresh are the estimates? Time from capture to a sink by station, losses, CPU and memory.

    For example: [bold]emi bench live --input talk.mp4[/bold] or [bold]emi bench live --flash-beep[/bold];
    [bold]emi bench live --quick[/bold] takes half a minute
    """
    from emi_live.cli.preflight import check_before_loading
    from emi_live.config import load_config

    if quick:
        flash_beep = flash_beep or (input_ is None and camera is None)
        duration = duration or QUICK_LIVE_S
    if [input_ is not None, camera is not None, flash_beep].count(True) != 1:
        raise ConfigurationError("give one of: --input FILE, --camera N --duration S, --flash-beep")
    if camera is not None and duration is None:
        raise ConfigurationError("a camera never ends; say how long to measure, e.g. --duration 60")
    if flash_beep and mic is not None:
        raise ConfigurationError("--flash-beep makes its own sound; leave out --mic")
    _check_json(json_)
    source = {"input": input_, "camera": int(camera) if camera and camera.isdecimal() else camera, "mic": mic}
    overrides: dict[str, object] = {
        "source": {key: value for key, value in source.items() if value is not None}
    }
    if duration is not None:
        overrides["duration_s"] = duration
    # No other engine is measured in place of the one that was asked for.
    overrides["fusion"] = {"strict": True}
    config = load_config(settings=set_ or (), overrides=overrides)
    if flash_beep and not config.source.is_pushed:
        raise ConfigurationError("--flash-beep brings its own media; leave out the settings of source.*")

    check_before_loading(config)
    from emi_bench.live.run import measure_flash_beep, measure_live

    length_s = config.duration_s or (FLASH_BEEP_S if flash_beep else None)
    with keep_if_interrupted(json_), _bar("loading models") as bar:

        def show(estimate: Estimate) -> None:
            age_ms = estimate.latency.capture_to_estimate
            age = "no evidence yet" if age_ms is None else f"{age_ms:.0f} ms after capture"
            bar.show(f"at real pace: {estimate.t_s:.0f} s, {age}", estimate.t_s, length_s)

        report = (
            measure_flash_beep(config, length_s or FLASH_BEEP_S, show)
            if flash_beep
            else measure_live(config, show)
        )
    _give(report, json_)


@app.command()
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
            help="real (read speech of EMI_TEST_ASSETS), synthetic (eSpeak NG, with true times of words), or "
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
        typer.Option(min=1.5, help="Length of a synthetic monologue: does the lag grow?"),
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
    """
    from rich.console import Console

    from emi_bench.speech.run import make_settings, measure_speech
    from emi_live.cli.downloads import download_bar

    _check_json(json_)
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
    with keep_if_interrupted(json_), download_bar(Console(stderr=True)) as download, _bar() as bar:
        report = measure_speech(settings, bar.show, download)
    _give(report, json_)


@app.command()
def systems(
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder of clips, as `emi synth` makes it.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for systems.md, .json and .png.")] = Path(
        "docs/benchmarks"
    ),
    runs: Annotated[
        Path, typer.Option("--runs", help="Folder where each result is kept, so that it is done once.")
    ] = Path("out/systems"),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs of a stage.")] = 12,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time, each on one core.")] = 2,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A variant's name; may be repeated. Default: all.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Two minutes: four systems, one epoch, one seed, and without --data 100 synthetic clips. "
            "Shows that it works, not which is best. Nothing is kept.",
        ),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Which system is best, and what is each part of TAEMI for? Trains and compares them all.

    If it is interrupted, the same command continues.

    For example:

    [bold]emi bench systems --quick[/bold]

    [bold]emi synth --clips 4000 --out synth && emi bench systems --data synth[/bold]
    """
    with ExitStack() as scratch:
        if quick:
            folder = Path(scratch.enter_context(TemporaryDirectory(prefix="emi-systems-")))
            out, runs, seeds, epochs = folder / "page", folder / "runs", 1, 1
            only = only or list(QUICK_VARIANTS)
            if data is None:
                from emi_bench.systems.compare import write_small_corpus

                data = write_small_corpus(folder / "clips")
        if data is None:
            raise ConfigurationError("say which clips: --data DIR, or --quick for synthetic ones")
        _compare(data, out, runs, seeds, epochs, jobs, only or [], json_)


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(help="What `--json FILE` of the benchmarks wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="Write OUT.md and OUT.png. Default: print the page.")
    ] = None,
    figure: Annotated[bool, typer.Option(help="Draw the figure too; it needs matplotlib.")] = True,
) -> None:
    """Make one page and one figure from reports of any benchmarks.

    For example: [bold]emi bench report fusion.json bus.json --out docs/benchmarks/mine[/bold]
    """
    from emi_bench.report import make_report
    from emi_bench.report_file import ReportError

    try:
        make_report(files, out, figure=figure)
    except ReportError as error:
        raise ConfigurationError(str(error)) from error


def _check_json(where: str | None) -> None:
    """Refuse a place that cannot be written now, not after minutes of measuring."""
    from emi_live.cli.preflight import check_writable

    if where not in (None, "-"):
        check_writable("--json", Path(where))


def _give(found: BenchReport, json_: str | None) -> None:
    """Print a report, and write it as JSON if that was asked for; with `-`, JSON alone."""
    from emi_bench.render import print_page

    if json_ != "-":
        print_page(found.page())
    write_report(json_, found)


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


def _compare(
    data: Path, out: Path, runs: Path, seeds: int, epochs: int, jobs: int, only: list[str], as_json: bool
) -> None:
    from emi_bench.render import print_page
    from emi_live.cli.data import check_data
    from emi_live.cli.preflight import check_out_folder

    check_data(data)
    check_out_folder("--out", out)
    check_out_folder("--runs", runs)

    from emi_bench.systems.compare import compare_systems

    with _bar("train") as bar:

        def show(done: int, total: int, run: TrainingRun | None) -> None:
            bar.show("train", done, total)
            if run is not None:
                result = f"{run.variant}, seed {run.seed}: rho {run.rho:.4f}, {run.wall_s:.0f} s"
                bar.say(f"{result} ({done} of {total})")

        try:
            found = compare_systems(
                data, out, runs, seeds=seeds, epochs=epochs, jobs=jobs, only=only, report=show
            )
        except KeyboardInterrupt:
            kept = len(list(runs.glob("*.json")))
            bar.say(f"interrupted: {kept} results are kept in {runs}; the same command continues")
            raise
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        print_page(found.page())


@dataclass(frozen=True, slots=True)
class _Bar:
    """A progress bar on standard error."""

    progress: Progress
    task: TaskID

    def show(self, what: str, done: float, of: float | None) -> None:
        """Name what is being done, and how much of it."""
        self.progress.update(self.task, description=what, completed=done, total=of or None)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(line, highlight=False)


@contextmanager
def _bar(description: str = "loading") -> Iterator[_Bar]:
    """The bar of all benchmarks; it is drawn only if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield _Bar(progress, progress.add_task(description, total=None))
