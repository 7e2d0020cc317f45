"""`emi bench`: measure emi-live on this machine. Its commands and their options, with `cli_speech.py`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

import typer

from emi_bench.cli_speech import drift, speech
from emi_bench.cli_truth import calibrate, ratings, truth
from emi_bench.fusion.settings import FusionSettings, SettingsError
from emi_bench.gpu import LIMIT_S
from emi_bench.harness import JsonFile, Settings, check_json, progress_bar
from emi_bench.render import ReportError
from emi_bench.report import give_report, keep_if_interrupted, make_report
from emi_live.errors import ConfigurationError
from emi_models.encoders.face import Backend
from emi_models.libraries import EXPORT, require

if TYPE_CHECKING:
    from emi_bench.systems_report import TrainingRun
    from emi_live import Estimate

__all__ = ["app"]

FLASH_BEEP_S: Final = 60.0  # about 50 onsets at the default hop
QUICK_LIVE_S: Final = 25.0
QUICK_PACKETS: Final = 1_000
QUICK_FLOOD_S: Final = 0.5
QUICK_VARIANTS: Final = ("taemi", "two_stage", "dual_stage", "semantic_matters")
DEFAULT: Final = FusionSettings()
FACE_BACKENDS: Final = get_args(Backend)

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
    from emi_bench.bus import TRANSPORTS, measure_bus

    wanted = list(dict.fromkeys(transport or TRANSPORTS))
    if unknown := [name for name in wanted if name not in TRANSPORTS]:
        raise ConfigurationError(f"--transport {unknown[0]} is not one of {', '.join(TRANSPORTS)}")
    check_json(json_)
    if quick:
        n, flood = min(n, QUICK_PACKETS), min(flood, QUICK_FLOOD_S)
    with keep_if_interrupted(json_), progress_bar() as bar:
        report = measure_bus(wanted, n, flood, bar.show)
    give_report(json_, report)


def face(
    input_: Annotated[Path, typer.Option("--input", help="A clip that shows a face.")],
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", help="litert or mediapipe; may be repeated. Default: both."),
    ] = None,
    max_faces: Annotated[
        list[int] | None,
        typer.Option("--max-faces", help="A value of face.max_faces; may be repeated. Default: 2 and 1."),
    ] = None,
    pictures: Annotated[int, typer.Option(min=20, help="Pictures of the clip, at most.")] = 300,
    json_: JsonFile = None,
) -> None:
    """What does a picture of a face cost, in CPU milliseconds, and do the backends see the same?

    For example: [bold]emi bench face --input talk.mp4[/bold] or
    [bold]emi bench face --input talk.mp4 --backend litert --max-faces 1[/bold]
    """
    from emi_bench.face import measure_faces
    from emi_live.bundle.base import FACE_MODEL
    from emi_models.store import ModelStore

    wanted = list(dict.fromkeys(backend or FACE_BACKENDS))
    if unknown := [name for name in wanted if name not in FACE_BACKENDS]:
        raise ConfigurationError(f"--backend {unknown[0]} is not one of {', '.join(FACE_BACKENDS)}")
    check_json(json_)
    if not input_.is_file():
        raise ConfigurationError(f"--input {input_}: there is no such file")
    with progress_bar() as bar:
        report = measure_faces(
            input_,
            ModelStore().locate(FACE_MODEL),
            [name for name in FACE_BACKENDS if name in wanted],
            list(dict.fromkeys(max_faces or (2, 1))),
            pictures,
            bar.show,
        )
    give_report(json_, report)


def serve(
    input_: Annotated[Path, typer.Option("--input", help="A clip with a face and speech.")],
    sessions: Annotated[
        list[int] | None,
        typer.Option("--sessions", min=1, help="People at one time; may be repeated. Default: 1, 2, 4, 8."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long each number is measured.")] = 30.0,
    pictures: Annotated[float, typer.Option(min=1.0, max=60.0, help="Pictures a second of each.")] = 15.0,
    replicas: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Servers on Ray; may be repeated. 0, the default: one process."),
    ] = None,
    simulate: Annotated[
        int, typer.Option(min=0, help="Also simulate so many people, with the measured cost. 0: none.")
    ] = 0,
    networks: Annotated[
        int, typer.Option(min=0, help="On Ray, networks for all; 0: each replica has one.")
    ] = 0,
    recognizers: Annotated[
        int, typer.Option(min=0, help="On Ray, recognisers for all; 0: each replica has one.")
    ] = 0,
    set_: Settings = None,
    json_: JsonFile = None,
) -> None:
    """How many people does one `emi serve` take on this machine, and what does each of them get?

    For example: [bold]emi bench serve --input talk.mp4[/bold] or
    [bold]emi bench serve --input talk.mp4 --sessions 4 --set speech.backend=none[/bold] or
    [bold]emi bench serve --input talk.mp4 --replicas 0 --replicas 2 --simulate 1000[/bold]
    """
    require("starlette", "uvicorn", "websockets", extra="web", what="`emi bench serve`")
    if simulate or any(replicas or ()):
        require("ray", extra="cluster", what="--replicas and --simulate")
    from emi_bench.serve import measure_serve

    check_json(json_)
    if not input_.is_file():
        raise ConfigurationError(f"--input {input_}: there is no such file")
    for option, number in (("--networks", networks), ("--recognizers", recognizers)):
        if number and not any(replicas or ()):
            raise ConfigurationError(f"{option} are shared on Ray: add --replicas 1, or more")
    wanted = list(dict.fromkeys(sessions or (1, 2, 4, 8)))
    with progress_bar() as bar:
        report = measure_serve(
            *(input_, wanted, seconds, pictures, set_ or [], bar.show),
            replicas=list(dict.fromkeys(replicas or (0,))),
            simulate=simulate,
            networks=networks,
            recognizers=recognizers,
        )
    give_report(json_, report)


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
    require(*EXPORT, extra="gpu", what="emi bench fusion")
    from emi_bench.fusion.__main__ import bench_fusion
    from emi_bench.fusion_people import measure_people

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
        bench_fusion(settings, json_, measure_people)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error


def gpu(
    out: Annotated[Path, typer.Option("--out", help="Folder for what is found; made if it does not exist.")],
    clip: Annotated[
        Path | None, typer.Option(help="A media file for the live runs. Default: generated media.")
    ] = None,
    device: Annotated[
        Literal["cuda", "cpu"], typer.Option(help="cpu shows what happens where there is no GPU.")
    ] = "cuda",
    limit_s: Annotated[float, typer.Option(min=1.0, help="Seconds of a piece, at most.")] = LIMIT_S,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few calls of each, to see that it works.")
    ] = False,
    figure: Annotated[bool, typer.Option(help="Draw the figure too; it needs matplotlib.")] = True,
) -> None:
    """Measure everything on a GPU with one command: each engine by precision and batch, then live.

    Each engine runs in its own process. One that fails is recorded with its reason, and the rest goes on. If
    the command is interrupted, the same command continues. The folder gets one page, one figure and one JSON
    of each piece.

    For example: [bold]emi bench gpu --out gpu --clip talk.mp4[/bold]
    """
    from emi_bench.gpu import bench_gpu

    if code := bench_gpu(out, clip, device, limit_s, quick=quick, figure=figure):
        raise typer.Exit(code)


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
    from emi_live.cli.options import check_before_loading
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
    check_json(json_)
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
    from emi_bench.live import measure_flash_beep, measure_live

    length_s = config.duration_s or (FLASH_BEEP_S if flash_beep else None)
    with keep_if_interrupted(json_), progress_bar("loading models") as bar:

        def show(estimate: Estimate) -> None:
            age_ms = estimate.latency.capture_to_estimate
            age = "no evidence yet" if age_ms is None else f"{age_ms:.0f} ms after capture"
            bar.show(f"at real pace: {estimate.t_s:.0f} s, {age}", estimate.t_s, length_s)

        report = (
            measure_flash_beep(config, length_s or FLASH_BEEP_S, show)
            if flash_beep
            else measure_live(config, show)
        )
    give_report(json_, report)


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
                from emi_bench.systems import write_small_corpus

                data = write_small_corpus(folder / "clips")
        if data is None:
            raise ConfigurationError("say which clips: --data DIR, or --quick for synthetic ones")
        _compare(data, out, runs, seeds, epochs, jobs, only or [], json_)


def peers(
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", help="lsl, osc, mqtt, psi, ros2, foxglove, metrics or rerun; repeatable. Default: all."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=2.0, help="Seconds for each kind.")] = 30.0,
    broker: Annotated[str, typer.Option(help="HOST:PORT of a running broker, for mqtt.")] = "127.0.0.1:1883",
    json_: JsonFile = None,
) -> None:
    """How much later than the bus does a program of another kind get an estimate?

    For example: [bold]emi bench peers --kind lsl --kind osc --json peers.json[/bold]
    """
    from emi_bench.peers import KINDS, measure_peers

    check_json(json_)
    found = json.dumps(measure_peers(kind or KINDS, seconds, broker), indent=1)
    if json_ is None or json_ == "-":
        typer.echo(found)
    else:
        Path(json_).write_text(found + "\n", encoding="utf-8")


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
    try:
        make_report(files, out, figure=figure)
    except ReportError as error:
        raise ConfigurationError(str(error)) from error


def _compare(
    data: Path, out: Path, runs: Path, seeds: int, epochs: int, jobs: int, only: list[str], as_json: bool
) -> None:
    from emi_bench.render import print_page
    from emi_live.cli.options import check_data, check_out_folder

    check_data(data)
    check_out_folder("--out", out)
    check_out_folder("--runs", runs)

    require("torch", "lightning", extra="train", what="emi bench systems")
    from emi_bench.systems import compare_systems

    with progress_bar("train") as bar:

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


for command in (
    *(bus, drift, face, fusion, gpu, live, peers, serve, speech, systems),
    *(truth, ratings, calibrate, report),
):
    app.command()(command)
