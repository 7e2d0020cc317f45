"""`emi privacy`: what a configuration opens, contacts, sends, writes and keeps in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import typer

from emi_live.addresses import is_ros2
from emi_live.cli.errors import DebugOption
from emi_live.cli.options import media_argument
from emi_models.libraries import LATE, SWITCHES, mediapipe_release, telemetry_warnings

if TYPE_CHECKING:
    from emi_live.config import LiveConfig
    from emi_models.store import ModelStore

__all__ = ["Fact", "app", "facts", "models_wanted"]

HELP = """List what a configuration opens, contacts, sends, writes and keeps in memory.

Use the options of your emi-live command. The list opens, contacts and writes nothing.

[bold]Examples[/bold]

  emi privacy --camera 0
  emi privacy --camera rtsp://host/stream --publish tcp://127.0.0.1:5561
  emi privacy --input talk.mp4 --json talk.jsonl --offline
  emi privacy --serve 127.0.0.1
  emi privacy --cluster auto
"""

Kind = Literal["opens", "contacts", "sends", "writes", "memory", "telemetry", "never"]
HEADINGS: Final[dict[Kind, str]] = {
    "opens": "Opens",
    "contacts": "Contacts",
    "sends": "Sends",
    "writes": "Writes",
    "memory": "Keeps in memory while it runs",
    "telemetry": "Libraries",
    "never": "Never",
}
SAMPLE_BYTES: Final = 4
# What programs that embed emi-live bring with them.
AGENTS: Final = {
    "pipecat-ai": "none of its own, and the services of a bot send what they need; but it loads onnxruntime: "
    "import emi_live before it, or set ORT_DISABLE_TELEMETRY=1",
    "livekit": "none: it connects to the server that a program names",
}
PUBLISHED: Final = "each estimate: time, six intensities, states, and the words of the last seconds"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
FLAG = " "  # without it, typer shows <bool>, as if the option needed a value


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a run does, or never does."""

    kind: Kind
    what: str
    detail: str


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def privacy(
    media: Annotated[str | None, typer.Argument(metavar="[FILE]", help="As in emi-live.")] = None,
    camera: Annotated[str | None, typer.Option(metavar="N|PATH|URL", help="As in emi-live.")] = None,
    input_: Annotated[Path | None, typer.Option("--input", metavar="FILE", help="As in emi-live.")] = None,
    mic: Annotated[str | None, typer.Option(metavar="NAME|none", help="As in emi-live.")] = None,
    demo: Annotated[bool, typer.Option("--demo", metavar=FLAG, help="As in emi-live.")] = False,
    json_: Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="As in emi-live.")] = None,
    publish: Annotated[str | None, typer.Option(metavar="ADDRESS", help="As in emi-live.")] = None,
    web: Annotated[str | None, typer.Option(metavar="PORT|ADDRESS", help="As in emi-live.")] = None,
    to: Annotated[list[str] | None, typer.Option(metavar="KIND:ADDRESS", help="As in emi-live.")] = None,
    marks: Annotated[list[str] | None, typer.Option(metavar="KIND:ADDRESS", help="As in emi-live.")] = None,
    metrics: Annotated[str | None, typer.Option(metavar="PORT|ADDRESS", help="As in emi-live.")] = None,
    lan: Annotated[bool, typer.Option("--lan", metavar=FLAG, help="As in emi-live.")] = False,
    record: Annotated[Path | None, typer.Option(metavar="FILE.mcap", help="As in emi-live.")] = None,
    record_media: Annotated[
        bool, typer.Option("--record-media", metavar=FLAG, help="As in emi-live.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="As in emi-live.")] = None,
    serve: Annotated[str | None, typer.Option(metavar="ADDRESS", help="As emi serve --host.")] = None,
    ice: Annotated[list[str] | None, typer.Option(metavar="URL", help="As in emi serve.")] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="auto|HOST:PORT", help="As in emi extract, score and serve.")
    ] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", metavar=FLAG, help="As in emi-live.")] = True,
    append: Annotated[bool, typer.Option("--append", metavar=FLAG, help="As in emi-live.")] = False,
    force: Annotated[bool, typer.Option("--force", metavar=FLAG, help="As in emi-live.")] = False,
    strict: Annotated[bool, typer.Option("--strict", metavar=FLAG, help="As in emi-live.")] = False,
    config: Annotated[str | None, typer.Option(metavar="PRESET|FILE", help="As in emi-live.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As in emi-live.")
    ] = None,
    mode: Annotated[str | None, typer.Option(metavar="live|exact", help="As in emi-live.")] = None,
    duration: Annotated[float | None, typer.Option(metavar="S", help="As in emi-live.")] = None,
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="As in emi-live.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="As in emi-live.")] = None,
    offline: Annotated[bool, typer.Option("--offline", metavar=FLAG, help="As in emi-live.")] = False,
    as_json: Annotated[
        bool, typer.Option("--as-json", metavar=FLAG, help="One JSON array of kind, what, detail.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    from emi_live.config import load_config

    source = {
        "camera": int(camera) if camera is not None and camera.isdecimal() else camera,
        "input": input_ if media is None else media_argument(media),
        "mic": mic,
    }
    output = {
        "json_path": json_,
        "publish": publish,
        "web": web,
        "to": to or None,
        "lan": lan or None,
        "record": record,
        "record_media": record_media or None,
        "metrics": metrics,
        "marks": marks or None,
        "ui": None if ui else False,
        "append": append or None,
        "force": force or None,
    }
    options: dict[str, dict[str, Any]] = {
        "source": source,
        "output": output,
        "fusion": {"engine": engine, "checkpoint": checkpoint, "strict": strict or None},
        "models": {"offline": offline or None},
    }
    given: dict[str, Any] = {
        section: {name: value for name, value in values.items() if value is not None}
        for section, values in options.items()
    }
    run = {"mode": mode, "duration_s": duration}
    given |= {name: value for name, value in run.items() if value is not None}
    settings = load_config(config, set_ or (), given)
    found = list(facts(settings, picture=picture, demo=demo, serve=serve, ice=ice or (), cluster=cluster))
    found.sort(key=lambda fact: list(HEADINGS).index(fact.kind))
    if as_json:
        typer.echo(json.dumps([asdict(fact) for fact in found], indent=2))
        return
    _show(found)


def facts(
    config: LiveConfig,
    *,
    picture: Path | None = None,
    demo: bool = False,
    serve: str | None = None,
    ice: Sequence[str] = (),
    cluster: str | None = None,
) -> Iterator[Fact]:
    """Everything that a run of these settings opens, contacts, sends, writes and keeps.

    Args:
        config: the settings of the run.
        picture: file in which the view is saved at the end; None = not saved.
        demo: the scripted demo runs instead of media and encoders.
        serve: the address on which `emi serve` listens; None: it does not run.
        ice: servers that WebRTC may ask.
        cluster: the `--cluster` of `emi extract`, `emi score` or `emi serve`; None: one machine, without Ray.

    Raises:
        ConfigurationError: settings that a run would refuse, such as an open address without keys.
    """
    from emi_models.store import ModelStore

    store = ModelStore(config.models.directory, offline=config.models.offline)
    wanted = [] if demo else models_wanted(config, store)
    yield from _opens(config, demo)
    contacts = _contacts(config, store, wanted)
    clips = cluster is not None and serve is None  # `emi extract` or `emi score`
    somebody = bool(ice) or cluster not in (None, "auto") or clips
    yield from (fact for fact in contacts if not (somebody and fact.what == "nobody"))
    if serve is not None:
        yield from _serves(serve, ice)
        yield from _writes_a_key(on_ray=cluster is not None)
    if cluster is not None:
        yield from _on_cluster(cluster)
        yield from _clips_elsewhere() if clips else _between_replicas()
    yield from _sends(config)
    yield from _writes_what_is_asked_for(config, picture)
    yield from _writes_in_its_cache(config, store, wanted)
    yield from _memory(config, demo)
    yield from _telemetry()
    yield Fact(
        "never",
        "identity",
        "nothing is computed that distinguishes one person's face or voice from another's",
    )
    if not config.output.record_media:
        what = "they are never written or sent; only what is listed above is"
        yield Fact("never", "pictures and sound", what)


def _serves(host: str, ice: Sequence[str]) -> Iterator[Fact]:
    """What `emi serve` receives and sends."""
    local = _is_loopback(f"http://[{host}]" if ":" in host else f"http://{host}")
    reach = "only from this machine" if local else "other machines can connect, with the token"
    yield Fact(
        "opens", f"port on {host}", f"takes pictures and sound that browsers and programs send; {reach}"
    )
    if find_spec("aiortc") is not None:
        where = "127.0.0.1" if local else "each address of this machine"
        what = "for who connects by WebRTC, while it lasts; only the client of that session can use it"
        yield Fact("opens", f"a UDP port on {where}", what)
    for url in ice:
        server = url.rpartition("@")[2] if "@" in url else url.partition(":")[2]
        yield Fact("contacts", server, "STUN or TURN of WebRTC (--ice): learns the addresses of both sides")
    yield Fact("sends", f"page and messages on {host}", f"to who began the session: {PUBLISHED}; {reach}")


def _writes_a_key(*, on_ray: bool) -> Iterator[Fact]:
    what = "with --self-signed, a certificate and its private key, only for you; deleted at the end"
    if not on_ray:
        yield Fact("writes", "emi-… in the temporary folder", what)
        return
    stays = ". After kill -9 they stay, for a service that goes on: delete them once it has ended"
    yield Fact("writes", "emi-tls-… in the temporary folder", what + stays)


def _between_replicas() -> Iterator[Fact]:
    """What the parts of a service on Ray send each other; on HOST:PORT they may be on several machines."""
    sent = "from the replica that a browser reaches to the one that has its session"
    yield Fact("sends", "pictures, sound and messages", sent)
    sent = "with --recognizers the sound of utterances, with --networks features of face, voice and words: "
    yield Fact("sends", "sound and windows", f"{sent}from a replica to the process that computes for all")
    sent = "those of /healthz and /metrics: from each replica to the one that is asked"
    yield Fact("sends", "counts of sessions and events", sent)


def _clips_elsewhere() -> Iterator[Fact]:
    """What clips at a URL add; each worker fetches its own."""
    asks = "without keys, s3fs also asks 169.254.169.254 for those of the machine, unless "
    what = f"the store or web server that it names; {asks}AWS_EC2_METADATA_DISABLED=true"
    yield Fact("contacts", "for clips at a URL", what)
    what = "a copy of a clip at a URL, deleted after the clip; after kill -9, by the next run there"
    yield Fact("writes", "emi-clip-… in each machine's temporary folder", what)


def _on_cluster(address: str) -> Iterator[Fact]:
    """What `--cluster` adds."""
    from emi_live.cluster.ray_start import check_address

    check_address(address)
    if address == "auto":
        yield Fact("opens", "Ray's ports on 127.0.0.1", "only who has the token of this run can use them")
        what = "Ray's logs and sockets; deleted at the end; after kill -9, by the next --cluster auto"
        yield Fact("writes", "emi-ray-… in the temporary folder", what)
        yield Fact(
            "memory", "128 MiB of shared memory", "names of clips and results, between Ray's processes"
        )
        what = "off: statistics, look-ups of its own address and of a cloud's metadata (docs/scale.md)"
        yield Fact("telemetry", "ray", what)
        return
    what = "settings, paths of clips and results; its processes do what you may do; it is not encrypted"
    yield Fact("contacts", f"the head of Ray at {address}", "and the machines of that cluster")
    yield Fact("sends", f"--cluster {address}", what)
    what = "as whoever started that cluster set it; RAY_USAGE_STATS_ENABLED=0 there (docs/scale.md)"
    yield Fact("telemetry", "ray", what)


def models_wanted(config: LiveConfig, store: ModelStore) -> list[str]:
    """Names, as in the catalogue, of the models that a run needs."""
    from emi_live.bundle import bundle_of
    from emi_live.bundle.base import in_store, whisper_model

    video, audio = _streams(config)
    bundle = bundle_of(config)
    names: list[str] = []
    if video and config.face.enabled:
        names += bundle.models_for("vision", config)
    if audio and config.audio.enabled:
        names += bundle.models_for("audio", config)
    if audio and config.speech.backend in ("auto", "whisper"):
        smaller = None if config.exact else config.speech.smaller_model
        wanted = [whisper_model(config, store), *([in_store(smaller)] if smaller else [])]
        names += [name for name in wanted if not Path(name).is_dir()]
    if audio and config.speech.backend != "none":
        names += bundle.models_for("text", config)
    return names


def _streams(config: LiveConfig) -> tuple[bool, bool]:
    """Whether a run can have pictures, and whether it can have sound."""
    source = config.source
    return source.is_pushed or source.camera is not None or source.input is not None, source.mic != "none"


def _opens(config: LiveConfig, demo: bool) -> Iterator[Fact]:
    source = config.source
    if demo:
        yield Fact("opens", "no device", "the demo uses a script and recorded features from the package")
    elif source.is_pushed:
        yield Fact("opens", "no device", "a program pushes pictures and sound; for emi-live, name a source")
    if source.input is not None and not demo:
        yield Fact("opens", f"file {source.input}", "its pictures, and its sound unless --mic is given")
    for topic in (source.camera, source.mic):
        if is_ros2(topic) and not demo:
            who = (
                "the network, in clear text"
                if config.output.lan
                else "this machine; its UDP ports are open to others"
            )
            yield Fact("opens", str(topic), f"what ROS 2 publishes there, by DDS, of programs of {who}")
    if source.camera is not None and not demo and not _is_url(source.camera):
        yield Fact("opens", f"camera {source.camera}", "pictures, while it runs")
    named = source.mic not in (None, "none") and not is_ros2(source.mic)
    if not demo and (named or (source.camera is not None and source.mic is None)):
        name = "default microphone" if source.mic in (None, "default") else f"microphone {source.mic}"
        yield Fact(
            "opens", name, "sound, while it runs, through PortAudio and the sound server of this machine"
        )
    for text in config.output.marks:
        who = "any machine of the network" if config.output.lan else "this machine"
        yield Fact("opens", f"--marks {text}", f"markers that programs of {who} set; nothing is sent")
    yield Fact("opens", f"checkpoint {_checkpoint(config)}", "read only")


def _checkpoint(config: LiveConfig) -> str:
    from emi_live.bundle import bundle_of

    if config.fusion.checkpoint is not None:
        return str(config.fusion.checkpoint)
    bundle = bundle_of(config)
    return "(none given)" if bundle.checkpoint is None else str(bundle.packaged_checkpoint())


def _contacts(config: LiveConfig, store: ModelStore, wanted: list[str]) -> Iterator[Fact]:
    from emi_live.addresses import safe_address

    none = True
    camera = config.source.camera
    if camera is not None and _is_url(camera) and not is_ros2(camera):
        none = False
        where = "on this machine" if _is_loopback(str(camera)) else "looks up its name and connects to it"
        yield Fact("contacts", f"camera {safe_address(camera)}", where)
    for name in wanted:
        status = store.status(name)
        if status.here:
            continue
        if not store.fetches:
            yield Fact("contacts", f"nobody for {name}", "the model is not here, and is not downloaded")
            continue
        none = False
        contacts = store.contacts(name)
        for contact in contacts:
            fetched = f"to fetch {name}: {contact.size / 1e6:.1f} MB; follows its links to other hosts"
            if contact.is_index:
                detail = f"once, {fetched}; pip tells it your Python version and system"
            else:
                when = "only if the package index fails" if len(contacts) > 1 else "once"
                detail = f"{when}, {fetched}; no cookie, no account"
            yield Fact("contacts", contact.server, detail)
    if none:
        yield Fact("contacts", "nobody", "no address outside this machine, no look-up of a host name")


def _sends(config: LiveConfig) -> Iterator[Fact]:
    from emi_live.ports import CurveKeys, Endpoints
    from emi_live.sinks.publish import PublishSink
    from emi_live.wire import TOPICS

    keys = CurveKeys.of(config.bus) is not None
    guarded = "CURVE: encrypted, only for holders of the key pair" if keys else "no keys"
    if config.output.publish is not None:
        PublishSink(config.output.publish, config.bus)  # raises the errors that a run would raise
        reach = "only this machine" if _is_loopback(config.output.publish) else "other machines can connect"
        yield Fact("sends", f"--publish {config.output.publish}", f"{PUBLISHED}; {reach}; {guarded}")
    if config.output.web is not None:
        what = "to pages of this machine: pictures of at most 480 pixels in width, and " + PUBLISHED
        yield Fact("sends", f"--web {config.output.web}", what)
    yield from _sends_to_peers(config)
    bus = config.bus
    if bus.transport == "inproc":
        yield Fact("sends", "only between its own threads", "no other process can open these sockets")
    elif bus.transport == "ipc":
        yield Fact("sends", "bus over Unix sockets", "features and estimates, in a folder only for you")
    else:
        endpoints = Endpoints(bus)
        first, last = (endpoints.to_bind(topic) for topic in (TOPICS[0], TOPICS[-1]))
        reach = "only this machine" if _is_loopback(first) else "other machines can connect"
        yield Fact("sends", f"bus on {first} to {last}", f"features and estimates; {reach}; {guarded}")


def _sends_to_peers(config: LiveConfig) -> Iterator[Fact]:
    """What each `--to` sends, and to whom; nothing is connected or announced for this."""
    from emi_live.sinks.peers import open_peer

    reach = "other machines can read it, in clear text" if config.output.lan else "only this machine"
    if config.output.metrics is not None:
        what = "times at each station, counters, states and intensities; no words"
        yield Fact("sends", f"--metrics {config.output.metrics}", f"{what}; {reach}")
    for text in config.output.to:
        peer = open_peer(text, lan=config.output.lan)
        if peer.file is not None:
            yield Fact("writes", f"--to {text}", peer.sends)
        else:
            yield Fact("sends", f"--to {text}", f"{peer.sends}; {peer.where}; {reach}")


def _writes_what_is_asked_for(config: LiveConfig, picture: Path | None) -> Iterator[Fact]:
    output = config.output
    if output.json_path == "-":
        yield Fact("writes", "standard output (--json -)", PUBLISHED)
    elif output.json_path is not None:
        yield Fact("writes", f"--json {output.json_path}", PUBLISHED)
    if output.record is not None:
        kept = (
            f"{PUBLISHED}; and features of face, voice and words, from which no picture or sound can be made"
        )
        if output.record_media:
            kept = f"PICTURE AND SOUND, as they were captured; {PUBLISHED}; features"
        yield Fact("writes", f"--record {output.record}", kept)
    if picture is not None:
        yield Fact("writes", f"--picture {picture}", "the view at the end, with its words")
    if output.publish is not None and output.publish.startswith("ipc://"):
        yield Fact("writes", output.publish.removeprefix("ipc://"), "the socket of --publish, only for you")
    if output.ui and output.json_path != "-":
        yield Fact("writes", "this terminal", "the view: intensities, states and words; a summary at the end")
    if config.bus.transport == "ipc":
        folder = config.bus.directory or "a folder under $XDG_RUNTIME_DIR or the temporary folder"
        yield Fact("writes", str(folder), "sockets of the bus, removed at the end")


def _writes_in_its_cache(config: LiveConfig, store: ModelStore, wanted: list[str]) -> Iterator[Fact]:
    from emi_models.files import library_caches, user_cache

    cache = user_cache(os.environ)
    absent = [name for name in wanted if not store.status(name).here]
    if absent and store.fetches:
        yield Fact("writes", str(store.root), f"downloaded models: {', '.join(absent)}")
    if wanted:
        yield Fact("writes", str(store.ledger_path), "which model files were verified: paths, sizes, hashes")
        yield Fact("writes", "a temporary file", "what native libraries log while loading; deleted at once")
    checkpoint = config.fusion.checkpoint
    if checkpoint is not None and not checkpoint.with_suffix(".onnx").is_file():
        yield Fact("writes", str(cache / "onnx"), "the checkpoint's network as ONNX, for ONNX Runtime")
    if config.fusion.engine.startswith("tensorrt"):
        yield Fact("writes", str(cache / "plans"), "the checkpoint's network for this GPU")
    caches = {**library_caches(os.environ), **os.environ}
    yield Fact("writes", caches["TORCHINDUCTOR_CACHE_DIR"], "what PyTorch compiles; usually nothing")


def _window_s(config: LiveConfig) -> float:
    """Seconds of the longest thing that the checkpoint is shown."""
    if config.fusion.checkpoint is None:
        return config.window.length_s
    from emi_models.checkpoint import read_header

    return max(config.window.length_s, *read_header(config.fusion.checkpoint).spans_s.values(), 0.0)


def _memory(config: LiveConfig, demo: bool) -> Iterator[Fact]:
    from emi_live.rings import SAMPLE_RATE_HZ
    from emi_live.sinks.publish import HIGH_WATER_MARK

    video, audio = _streams(config)
    if audio and not demo:
        size = config.rings.audio_s * SAMPLE_RATE_HZ * SAMPLE_BYTES / 1e6
        yield Fact(
            "memory", "sound", f"the last {config.rings.audio_s:g} s ({size:.1f} MB), then overwritten"
        )
        if config.speech.backend != "none":
            yield Fact(
                "memory",
                "sound of the present utterance",
                f"at most {config.speech.limit_s:g} s, for the recogniser",
            )
    if video and not demo:
        yield Fact("memory", "pictures", f"the last {config.rings.video_frames}, then overwritten")
    yield Fact(
        "memory", "features and words", f"the last {_window_s(config):g} s, the input of the estimates"
    )
    queued = 2 * config.bus.high_water_mark  # half of them at each end
    yield Fact(
        "memory", "packets between parts", f"at most {queued} a connection, deleted when they are read"
    )
    if config.output.publish is not None:
        yield Fact(
            "memory", "published estimates", f"the last one, and at most {HIGH_WATER_MARK} for a slow client"
        )


def _telemetry() -> Iterator[Fact]:
    from importlib.metadata import PackageNotFoundError, version

    for switch in SWITCHES:
        state = "off" if switch.is_thrown(os.environ) else "ON"
        late = ", but set after the import" if switch in LATE else ""
        value = os.environ.get(switch.variable, "")
        yield Fact(
            "telemetry",
            switch.library,
            f"{state}{late} ({switch.variable}={value}); without it: {switch.without}",
        )
    yield Fact("telemetry", f"ai-edge-litert {version('ai-edge-litert')}", "none: it opens no connection")
    for name, does in AGENTS.items():
        with suppress(PackageNotFoundError):
            yield Fact("telemetry", f"{name} {version(name)}", does)
    release = mediapipe_release()
    if release is not None:
        loud = any("mediapipe" in line for line in telemetry_warnings())
        state = (
            "ON with face.backend=mediapipe: it contacts its maker"
            if loud
            else "off: this release has none (0.10.35 and later do)"
        )
        yield Fact("telemetry", f"mediapipe {release}", state)


def _is_url(camera: int | str) -> bool:
    from emi_live.addresses import has_scheme

    return has_scheme(camera)


def _is_loopback(address: str) -> bool:
    """Whether an address is on this machine, judged by its text only: no host is looked up."""
    import ipaddress

    if address.startswith(("ipc:", "file:")):
        return True
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _show(found: list[Fact]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from emi_live.sinks.viewstate import glyphs_for

    console = Console()
    printable = glyphs_for(console.encoding).printable  # file names may contain any character
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(overflow="fold", ratio=2)
    table.add_column(overflow="fold", ratio=3)
    before = None
    for fact in found:
        if fact.kind != before:
            if before is not None:
                table.add_row("", "")
            table.add_row(Text(HEADINGS[fact.kind], style="bold"), "")
        table.add_row(Text(f"  {printable(fact.what)}"), Text(printable(fact.detail)))
        before = fact.kind
    console.print(table)
    for line in telemetry_warnings():
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
