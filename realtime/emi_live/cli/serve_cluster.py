"""`emi serve --cluster`: begin a service on Ray, or replace one that runs there by a new version.

The service belongs to the command that deployed it last: Ctrl-C there ends it. A command whose service was
deployed again by another one ends, and leaves it running.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from emi_live.config import LiveConfig
    from emi_live.web.access import Access
    from emi_live.web.deploy import Deployed, Door

__all__ = ["Wanted", "self_signed_in", "serve_on_cluster", "where_to_open"]

FOLDER: Final = "emi-tls-"  # what the folder of a self-signed certificate is called


@dataclass(frozen=True)
class Wanted:
    """Where the service is to be reached, by the options."""

    host: str
    port: int  # 0: any
    certificate: Path | None
    key: Path | None
    self_signed: bool


def serve_on_cluster(address: str, plan: dict[str, Any], wanted: Wanted, console: Console) -> None:
    """Serve in replicas until Ctrl-C, or until another command has deployed the service again.

    Args:
        address: of the cluster, `auto` or HOST:PORT.
        plan: fields of `Plan`.
        wanted: where.
        console: shows what happens.

    Raises:
        ConfigurationError: the port is in use by another program, or a service that runs has another door.
        StageError: Ray or the service does not start, or the cluster has ended.
    """
    from emi_live.cluster.ray_start import AUTO, connected

    _check_devices(plan["config"], plan["networks"])
    port, in_use = _free_port(wanted)
    if in_use is not None and address == AUTO:  # an address in use is an error before Ray starts
        raise in_use
    with console.status("starting Ray …") as status, ExitStack() as opened:
        cluster = opened.enter_context(connected(address))
        from emi_live.web.deploy import check_room, deploy, machines, running_at
        from emi_live.web.replicas import Plan

        found = running_at()
        if found is not None:
            _check_same(address, wanted, found, plan["access"], console)
        elif in_use is not None:
            raise in_use
        access = plan["access"] = _with_token(plan["access"], wanted.host, found)
        if found is None and len(cluster.nodes) > 1:
            _check_certificate(wanted, len(cluster.nodes))
        what = Plan(**plan, cpus=0.0 if cluster.here else 1.0)
        check_room(what, machines())
        status.stop()  # there is a bar for models that are fetched
        _fetch_models(what.config, console)
        status.start()
        door = found or _new_door(wanted, port, access, console)
        status.update("loading the models …" if found is None else "deploying a new version …")
        with ExitStack() as failed:
            if found is None:
                failed.callback(_forget, door)
            tell = partial(console.print, style="yellow", markup=False, emoji=False, soft_wrap=True)
            deployed = deploy(what, door, here=cluster.here, tell=tell)
            failed.pop_all()
        opened.callback(_end, deployed, door, console)
        running = opened.pop_all()
    with running, suppress(KeyboardInterrupt):
        _say_what_runs(deployed.what_runs(), console)
        if found is not None:
            console.print("[bold]this version has replaced the one before[/bold]; its sessions have moved")
        for line in where_to_open(door.host, door.port, access, secure=door.certificate is not None):
            console.print(line, emoji=False, highlight=False, soft_wrap=True)
        say = f"{plan['least']}" if plan["least"] == plan["most"] else f"{plan['least']} to {plan['most']}"
        console.print(
            f"[dim]{say} replicas on Ray at {cluster.address}, {plan['sessions']} people each[/dim]"
        )
        deployed.wait()
        console.print("another emi serve has deployed a new version, which goes on without this command")
        if cluster.here:
            console.print("[dim]this command keeps Ray running (Ctrl-C ends all)[/dim]")
            threading.Event().wait()


def _end(deployed: Deployed, door: Door, console: Console) -> None:
    """End the service, if it still belongs to this command."""
    if not deployed.replaced:
        console.print("[dim]ending the replicas …[/dim]")
        if deployed.close():
            _forget(door)
        elif not deployed.replaced:
            console.print("[yellow]the cluster does not answer; the service may go on there[/yellow]")


def _fetch_models(config: LiveConfig, console: Console) -> None:
    """Fetch what is not on this machine, before many replicas want it; who lacks a model says so later."""
    from emi_live.cli.options import download_bar
    from emi_live.cli.privacy import models_wanted
    from emi_models.errors import EmiError
    from emi_models.store import ModelStore

    store = ModelStore(config.models.directory, offline=config.models.offline)
    if store.fetches:
        with download_bar(console) as progress:
            for name in models_wanted(config, store):
                with suppress(EmiError):
                    store.locate(name, progress)


def _say_what_runs(found: dict[str, list[str]], console: Console) -> None:
    """Say which models run, for each machine where they differ."""
    from emi_live.cli.session import announce

    by_lines: dict[tuple[str, ...], list[str]] = {}
    for host, lines in found.items():
        by_lines.setdefault(tuple(lines), []).append(host)
    for what, hosts in by_lines.items():
        if len(by_lines) > 1:
            console.print(f"on {', '.join(hosts)}:", style="bold", markup=False, highlight=False)
        announce(console, list(what))


def _with_token(access: Access, host: str, found: Door | None) -> Access:
    """The token that is given, else that of the service which runs, else a new one if others can connect."""
    from emi_live.web.access import is_loopback

    token = access.token or (found and found.token)
    return replace(access, token=token or (None if is_loopback(host) else secrets.token_urlsafe(16)))


def _free_port(wanted: Wanted) -> tuple[int, ConfigurationError | None]:
    """The port to listen on, or why it cannot be had: perhaps a service has it that is to be replaced."""
    from emi_live.web.server import listen

    try:
        with listen(wanted.host, wanted.port) as listener:
            return listener.getsockname()[1], None
    except ConfigurationError as error:
        return wanted.port, error


def _check_devices(config: LiveConfig, networks: int) -> None:
    """Raise ConfigurationError if the settings ask for a GPU that no replica gets from Ray."""
    if config.fusion.device == "cuda" and not networks:
        raise ConfigurationError("--cluster with fusion.device=cuda: add --networks 1, which gets the GPU")
    if config.models.device != "cpu":
        raise ConfigurationError(
            "--cluster: replicas have no GPU for encoders and Whisper; leave models.device out"
        )


def _check_certificate(wanted: Wanted, machines: int) -> None:
    """Raise ConfigurationError if one of the machines lacks the certificate: its proxy would not start."""
    from emi_live.web.deploy import machines_without

    if wanted.self_signed:
        raise ConfigurationError(
            f"--self-signed: the certificate would be on this machine alone, and the cluster has {machines}; "
            "give --certificate and --key, files that are at the same path on each"
        )
    files = [one.resolve() for one in (wanted.certificate, wanted.key) if one is not None]
    if files and (lacking := machines_without(files)):
        raise ConfigurationError(
            f"{' and '.join(map(str, files))}: not there on {', '.join(lacking)}; give files that are at the "
            "same path on each machine of the cluster"
        )


def _new_door(wanted: Wanted, port: int, access: Access, console: Console) -> Door:
    from emi_live.web.certificate import check_certificate
    from emi_live.web.deploy import Door

    if not wanted.self_signed:
        if wanted.certificate is not None:
            check_certificate(wanted.certificate, wanted.key)
        certificate, key = (one and one.resolve() for one in (wanted.certificate, wanted.key))
        return Door(wanted.host, port, certificate, key)
    # The proxies read it whenever they start, also when this command has ended and its service goes on.
    return Door(wanted.host, port, *self_signed_in(Path(tempfile.mkdtemp(prefix=FOLDER)), access, console))


def _check_same(address: str, wanted: Wanted, found: Door, access: Access, console: Console) -> None:
    """Raise ConfigurationError if a service that runs cannot be replaced by one with these options."""
    from emi_live.web.access import is_loopback
    from emi_live.web.certificate import fingerprint_of

    end = "end it first (Ctrl-C where it runs)"
    if wanted.host != found.host or wanted.port not in (0, found.port):
        raise ConfigurationError(
            f"--cluster {address}: emi serve runs there at {found.host}:{found.port}; give that --host and "
            f"--port to replace it, or {end}"
        )
    known = found.token is not None or is_loopback(found.host)
    if access.token is not None and known and access.token != found.token:
        has = "no" if found.token is None else "another"
        raise ConfigurationError(
            f"--cluster {address}: the service that runs there has {has} token, and its sessions come back "
            f"with that; leave --token out, or {end}"
        )
    own = found.certificate is not None and found.certificate.parent.name.startswith(FOLDER)
    given = wanted.certificate and wanted.certificate.resolve()
    if wanted.self_signed != own or (not own and given != found.certificate):
        has = "a self-signed certificate" if own else f"the certificate {found.certificate}"
        raise ConfigurationError(
            f"--cluster {address}: the service that runs there has "
            f"{has if found.certificate else 'no certificate'}, which a new version keeps; give the same, "
            f"or {end}"
        )
    if own and found.certificate is not None:
        if not found.certificate.is_file():
            raise ConfigurationError(
                f"--cluster {address}: the self-signed certificate of the service that runs there is not on "
                f"this machine ({found.certificate}); give the command where it is, or {end}"
            )
        show_fingerprint(fingerprint_of(found.certificate), console)


def _forget(door: Door) -> None:
    """Remove a certificate that was made for the service."""
    if door.certificate is not None and door.certificate.parent.name.startswith(FOLDER):
        shutil.rmtree(door.certificate.parent, ignore_errors=True)


def self_signed_in(folder: Path, access: Access, console: Console) -> tuple[Path, Path]:
    """A certificate for this run, and its key; its fingerprint is shown."""
    from emi_live.web.certificate import make_certificate

    hosts = ["localhost", "127.0.0.1", *access.hosts]
    certificate, key, fingerprint = make_certificate(hosts, folder)
    show_fingerprint(fingerprint, console)
    return certificate, key


def show_fingerprint(fingerprint: str, console: Console) -> None:
    """Say what people are to compare."""
    console.print(
        f"[yellow]self-signed: browsers warn; its SHA-256 is[/yellow]\n{fingerprint}",
        emoji=False,  # :CD: would be one
        highlight=False,
        soft_wrap=True,
    )


def where_to_open(host: str, port: int, access: Access, *, secure: bool) -> Iterator[str]:
    """Where to open the page, and who can reach it."""
    scheme = "https" if secure else "http"
    shown = "localhost" if host in ("127.0.0.1", "::1") else next(iter(sorted(access.hosts)), host)
    shown = f"[{shown}]" if ":" in shown else shown
    page = f"{scheme}://{shown}:{port}/" + (f"#token={access.token}" if access.token else "")
    yield f"[bold]open {page}[/bold]   (Ctrl-C ends)"
    if host in ("127.0.0.1", "::1"):
        yield "[dim]only this machine can connect; nothing is stored[/dim]"
        return
    yield "[yellow]other machines can connect; each client must give the token[/yellow]"
    if not access.hosts:
        yield "[yellow]browsers reach this server only under the names that you give with --name[/yellow]"
    if not secure:
        yield (
            "[yellow]browsers give camera and microphone only to https pages of other machines: "
            "add --self-signed, or --certificate and --key[/yellow]"
        )
