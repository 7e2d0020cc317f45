"""`emi serve`: a web page with your own picture, six curves and words; and a server for apps."""

from __future__ import annotations

import gc
import secrets
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.errors import DebugOption, report_errors
from emi_live.cli.options import complete_preset
from emi_live.errors import ConfigurationError
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiortc import RTCIceServer
    from rich.console import Console

    from emi_live.config import LiveConfig
    from emi_live.sharing import SharedModels
    from emi_live.web.sessions import Sessions

__all__ = ["app"]

HELP: Final = """Serve a page that shows your own picture, six curves and your words, live.

[bold]Start here[/bold]

  emi serve                                  then open the address that it prints
  emi serve --sessions 8 --config small      for more people, on a small machine
  emi serve --host 0.0.0.0 --name my.host --certificate c.pem --key k.pem
  emi serve --cluster auto --replicas 2      in several processes, on Ray (docs/scale.md)
  emi serve --cluster HEAD:6379              once more with other settings: a new version, sessions move

The browser sends its camera and microphone to this server, and to nobody else. Nothing is stored.
Other programs join over a WebSocket or WebRTC: docs/web.md.
"""
FLAG = " "

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.", metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 = any.", min=0, max=65535)] = 8765,
    sessions: Annotated[int, typer.Option(help="People at one time.", min=1, max=256)] = 4,
    idle: Annotated[
        float, typer.Option(help="End a session without media after this many seconds.", min=1)
    ] = 60.0,
    token: Annotated[
        str | None,
        typer.Option(
            help="Bearer token that clients must give. Made and shown if other machines can connect."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Host name under which browsers reach this server. Repeatable.", metavar="HOST"),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Site whose pages may use this server. Repeatable.", metavar="https://…"),
    ] = None,
    ice: Annotated[
        list[str] | None,
        typer.Option(
            help="STUN or TURN server for WebRTC; without it none is asked. Repeatable.",
            metavar="stun:HOST:PORT|turn:USER:PASSWORD@HOST:PORT",
        ),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate (PEM).", metavar="FILE")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", metavar="FILE")] = None,
    self_signed: Annotated[
        bool,
        typer.Option(
            "--self-signed",
            metavar=FLAG,
            help="TLS with a certificate made for this run. Browsers warn; compare the fingerprint.",
        ),
    ] = False,
    notice: Annotated[
        bool,
        typer.Option(
            "--notice/--no-notice",
            metavar=FLAG,
            help="Tell people that they are analysed. Leave it out only if you inform them yourself.",
        ),
    ] = True,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Serve in several processes on Ray: started here, or HOST:PORT of a head.",
            metavar="auto|HOST:PORT",
        ),
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option(
            help="Of the server, each for --sessions people: N, or as many as needed; without it 2.",
            metavar="N|MIN:MAX",
        ),
    ] = None,
    networks: Annotated[
        int,
        typer.Option(help="Replicas of one network for all; 0: each session has its own.", min=0, max=64),
    ] = 0,
    recognizers: Annotated[
        int,
        typer.Option(help="Replicas of one recogniser for all; 0: each server has one.", min=0, max=64),
    ] = 0,
    rolling: Annotated[
        bool,
        typer.Option(
            "--rolling",
            metavar=FLAG,
            help="On a cluster that serves already: one replica after the other, not all new ones at once.",
        ),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            help="A preset's name or a TOML file.", metavar="PRESET|FILE", autocompletion=complete_preset
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, e.g. window.hop_s=0.1. Repeatable.", metavar="KEY=VALUE"),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch no model.", metavar=FLAG)] = False,
    debug: DebugOption = False,
) -> None:
    with report_errors(debug):
        from emi_live.config import load_config

        overrides: dict[str, Any] = {"output": {"ui": False}}
        if offline:
            overrides["models"] = {"offline": True}
        settings = load_config(config, set_ or (), overrides)
        _check_certificate(certificate, key, self_signed=self_signed)
        if cluster is None:
            _check_alone(replicas=replicas, networks=networks, recognizers=recognizers, rolling=rolling)
        require(
            "starlette",
            "uvicorn",
            "websockets",
            "cryptography",
            "prometheus_client",
            extra="web",
            what="`emi serve`",
        )
        if ice:
            require("aiortc", extra="webrtc", what="--ice")
        from rich.console import Console

        from emi_live.cli.serve_cluster import Wanted, self_signed_in, serve_on_cluster, where_to_open
        from emi_live.cli.session import set_up_logging
        from emi_live.live import LiveEngine
        from emi_live.web import server
        from emi_live.web.access import Access, check_names, is_loopback
        from emi_live.web.broadcast import NOTICE
        from emi_live.web.sessions import Sessions

        set_up_logging(debug, view=False)
        everywhere = host in ("0.0.0.0", "::")  # noqa: S104 # the user has asked for it
        local = is_loopback(host)
        if not local and token is None and cluster is None:  # a service on a cluster may have one
            token = secrets.token_urlsafe(16)
        names = [*(name or ()), *(() if local or everywhere else (host,))]
        servers = _prepare_rtc(ice or (), loopback=local)
        access = Access(token, check_names(names), frozenset(origin or ()))
        console = Console(stderr=True)
        if cluster is not None:
            least, most = _replicas("2" if replicas is None else replicas)
            plan: dict[str, Any] = {
                "config": settings,
                "access": access,
                "least": least,
                "most": most,
                "sessions": sessions,
                "idle_s": idle,
                "version": version("emi-live"),
                "notice": NOTICE if notice else None,
                "networks": networks,
                "recognizers": recognizers,
                "ice": ice or (),
                "loopback": local,
                "rolling": rolling,
            }
            door = Wanted(host, port, certificate, key, self_signed=self_signed)
            serve_on_cluster(cluster, plan, door, console)
            return
        with (
            server.listen(host, port) as listener,
            TemporaryDirectory(prefix="emi-") as folder,
            _load_words(settings, console) as shared,
        ):
            crowd = Sessions(
                settings,
                most=sessions,
                idle_s=idle,
                version=version("emi-live"),
                notice=NOTICE if notice else None,
                make_engine=partial(LiveEngine, shared=shared),
            )
            _load_first(crowd, settings, shared, console)
            listener.listen()  # who reads the address below can connect
            port = listener.getsockname()[1]
            if self_signed:
                certificate, key = self_signed_in(Path(folder), access, console)
            for line in where_to_open(host, port, access, secure=certificate is not None):
                console.print(line, emoji=False, highlight=False, soft_wrap=True)
            with suppress(KeyboardInterrupt):  # that is how it ends
                app = server.build_app(crowd, access, servers, counts=shared.counts)
                server.serve(app, listener, certificate, key)


def _check_certificate(certificate: Path | None, key: Path | None, *, self_signed: bool) -> None:
    """Raise ConfigurationError if the files are not there, or the options contradict each other."""
    if (certificate is None) != (key is None):
        raise ConfigurationError("--certificate and --key belong together; give both")
    if self_signed and certificate is not None:
        raise ConfigurationError("--self-signed makes a certificate; leave out --certificate and --key")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise ConfigurationError(f"there is no file {file}")


def _check_alone(**given: object) -> None:
    """Raise ConfigurationError if an option is given that only a cluster has."""
    for name, value in given.items():
        if value not in (None, 0):
            raise ConfigurationError(
                f"--{name} is for several processes; add --cluster auto, or leave it out"
            )


def _replicas(text: str) -> tuple[int, int]:
    """The least and the most of `--replicas`: `2`, or `1:8`.

    Raises:
        ConfigurationError: it is neither.
    """
    least, _, most = text.partition(":")
    if least.isdecimal() and (most or least).isdecimal() and 0 < int(least) <= int(most or least) <= 1000:
        return int(least), int(most or least)
    raise ConfigurationError(f"--replicas {text}: give a number from 1 on, or two such as 1:8")


def _prepare_rtc(ice: Sequence[str], *, loopback: bool) -> Sequence[RTCIceServer]:
    """The servers that WebRTC may ask; its ports are on the same addresses as the server's."""
    if find_spec("aiortc") is None:
        return ()
    from emi_live.web.rtc import check_ice, use_addresses

    use_addresses(loopback=loopback)
    return check_ice(ice)


def _load_words(settings: LiveConfig, console: Console) -> SharedModels:
    """The models of words, which all sessions share; those that are not there are fetched."""
    from emi_live.bundle import bundle_of
    from emi_live.cli.options import download_bar
    from emi_live.cli.session import LoadingSteps
    from emi_live.sharing import SharedModels
    from emi_models.store import ModelStore

    bundle = bundle_of(settings)
    store = ModelStore(settings.models.directory, offline=settings.models.offline)
    with console.status("starting …") as status, download_bar(console) as progress:
        step = LoadingSteps(status, settings.fusion.threads, None)
        return SharedModels(bundle.load_words(settings, store, progress=progress, step=step))


def _load_first(crowd: Sessions, settings: LiveConfig, shared: SharedModels, console: Console) -> None:
    """Load the engine of the first session, and say what runs."""
    from emi_live.cli.options import download_bar
    from emi_live.cli.session import LoadingSteps, announce
    from emi_live.live import LiveEngine

    with console.status("starting …") as status, download_bar(console) as progress:
        step = LoadingSteps(status, settings.fusion.threads, None)
        lines = crowd.prepare(LiveEngine(settings, shared=shared, progress=progress, step=step))
    gc.freeze()  # what is loaded stays: the collector need not look at it after each session
    announce(console, lines)
