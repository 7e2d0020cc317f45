"""Reports: their common base, their JSON files, and `emi bench report`, which makes pages of them.

A bench declares its report once, as a dataclass derived from `BenchReport`. The same declaration is what the
bench fills in, what `--json FILE` writes, and what `emi bench report FILE` reads and checks: a field that is
missing, unknown or of another type is an error that names the place.

Runs where little more than Python is installed: `python -m emi_bench.report`. The figure needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Union, get_args, get_origin, get_type_hints

from emi_bench.measurement import Machine
from emi_bench.render import ReportError, draw_figures, markdown, need_matplotlib, print_page
from emi_models.console import accept_any_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_bench.render import Page

__all__ = [
    "REPORTS",
    "BenchReport",
    "Interrupted",
    "from_json",
    "keep_if_interrupted",
    "main",
    "make_report",
    "read_report",
    "to_json",
    "write_report",
]

SCALARS: Final = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
# The report of each bench; loaded when one is read, because some need libraries that a bare machine lacks.
REPORTS: Final = {
    "bus": "emi_bench.live_report:BusReport",
    "drift": "emi_bench.drift_report:DriftBenchReport",
    "face": "emi_bench.live_report:FaceReport",
    "fusion": "emi_bench.fusion.report:FusionReport",
    "live": "emi_bench.live_report:LiveReport",
    "speech": "emi_bench.speech.report:SpeechReport",
    "speech-peers": "emi_bench.speech.peer_report:PeerReport",
    "systems": "emi_bench.systems_report:SystemsReport",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """What one run of a benchmark found: the fields that all reports have."""

    bench: ClassVar[str]
    # Raised if a field changes its meaning or is removed.
    schema: ClassVar[int] = 1

    machine: Machine
    # Processes that wanted a core in the minute before the run; None: unknown.
    load_before: float | None = None
    # The run was interrupted; the report has what was found before.
    partial: bool = False

    def page(self) -> Page:
        """The report for readers: text, tables and figure."""
        raise NotImplementedError

    def where_and_when(self) -> str:
        """Machine, versions, load before the run, and whether the run was interrupted, in one line."""
        load = "" if self.load_before is None else f"; load average before the run {self.load_before:.1f}"
        return f"{self.machine.line()}{load}" + ("; PARTIAL: the run was interrupted" if self.partial else "")

    def to_json(self) -> dict[str, Any]:
        """The object that `--json FILE` writes."""
        plain: dict[str, Any] = to_json(self)
        if not plain.pop("partial"):
            return {"bench": self.bench, "schema": self.schema, **plain}
        return {"bench": self.bench, "schema": self.schema, **plain, "partial": True}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> BenchReport:
        """The report in an object that `to_json` made.

        Raises:
            ReportError: the schema is another one, or a field is missing, unknown or of another type.
        """
        rest = dict(found)
        rest.pop("bench", None)
        if (schema := rest.pop("schema", cls.schema)) != cls.schema:
            raise ReportError(f"it has schema {schema!r}, and this version reads {cls.schema}")
        report: BenchReport = from_json(cls, rest)
        return report


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a benchmark; `report` is what was found before it."""

    def __init__(self, report: BenchReport) -> None:
        super().__init__()
        self.report = replace(report, partial=True)


def write_report(where: Path | str | None, report: BenchReport) -> None:
    """Write a report as JSON to a file; "-" is standard output, and None writes nothing."""
    if where is None:
        return
    text = json.dumps(report.to_json(), indent=1) + "\n"
    if str(where) == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        Path(where).write_text(text, encoding="utf-8")


def give_report(where: str | None, report: BenchReport) -> None:
    """Print a report, and write it as JSON if a file is named; with "-", JSON alone."""
    if where != "-":
        print_page(report.page())
    write_report(where, report)


@contextmanager
def keep_if_interrupted(where: Path | str | None) -> Iterator[None]:
    """Write the report of an `Interrupted` inside the `with` to `where`, then raise it further."""
    try:
        yield
    except Interrupted as stop:
        write_report(where, stop.report)
        if where not in (None, "-"):
            sys.stderr.write(f"interrupted: the results so far are in {where}, marked as partial\n")
        raise


def to_json(value: Any) -> Any:
    """A value for JSON: a dataclass becomes an object, with the properties that it names in `computed`."""
    if is_dataclass(value) and not isinstance(value, type):
        plain = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
        return plain | {name: getattr(value, name) for name in getattr(value, "computed", ())}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, list | tuple) else value


def from_json(kind: Any, value: Any, where: str = "") -> Any:
    """A value of type `kind` from JSON; `where` is its place in the file.

    Raises:
        ReportError: it is of another type, or a field is missing or unknown; the message names the place.
    """
    if kind is Any:
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (other,) = (each for each in arguments if each is not NoneType)
        return None if value is None else from_json(other, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ReportError(f"{where} is {value!r}, not one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (list, tuple, Sequence):
        return _array(origin, arguments, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise ReportError(f"{where} is not an object")
        return {
            from_json(arguments[0], key, where): from_json(arguments[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    return _scalar(kind, value, where)


def _object(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ReportError(f"{where or 'the file'} is not an object")
    dot = f"{where}." if where else ""
    known = {field.name: field for field in fields(kind)}
    if unknown := value.keys() - known.keys() - {*getattr(kind, "computed", ())}:
        raise ReportError(f"{dot}{min(unknown)} is not a field that this version knows")
    given = {}
    for name, field in known.items():
        if name in value:
            given[name] = from_json(_hints(kind)[name], value[name], f"{dot}{name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ReportError(f"{dot}{name} is missing")
    return kind(**given)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _array(origin: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list):
        raise ReportError(f"{where} is not an array")
    if origin is tuple and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise ReportError(f"{where} has {len(value)} values, not {len(arguments)}")
        return tuple(from_json(*each, where) for each in zip(arguments, value, strict=True))
    items = [from_json(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    return tuple(items) if origin is tuple else items


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ReportError(f"{where} is {value!r:.40}, not {SCALARS[kind]}")
    return value


class NotAReportError(ReportError):
    """A JSON file that is not the report of any benchmark."""


def read_report(path: Path) -> BenchReport:
    """The report in a file.

    Raises:
        NotAReportError: the file holds JSON, but not a report.
        ReportError: the file cannot be read, or its report is incomplete or of another version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path} cannot be read as JSON: {error}; give what `--json FILE` wrote") from error
    bench = _bench_of(found)
    if bench is None:
        raise NotAReportError(
            f"{path} is not a report of `emi bench` {', '.join(REPORTS)}; give what their `--json FILE` wrote"
        )
    module, _, name = REPORTS[bench].partition(":")
    report_class: type[BenchReport] = getattr(import_module(module), name)
    try:
        return report_class.from_json(found)
    except ReportError as error:
        raise ReportError(
            f"{path} is not a complete report of `emi bench {bench}`: {error}; measure again with --json"
        ) from error


def _bench_of(found: Any) -> str | None:
    """The bench that wrote a JSON value; None if none did."""
    if not isinstance(found, dict):
        return None
    if "bench" not in found and {"runs", "rows", "expectations"} <= found.keys():
        return "systems"  # the first version did not write its name
    bench = found.get("bench")
    return bench if isinstance(bench, str) and bench in REPORTS else None


def make_report(paths: Sequence[Path], out: Path | None, *, figure: bool = True) -> None:
    """Write `out`.md and `out`.png; without `out`, print the Markdown and draw nothing.

    Of several files, those that are not reports are skipped with a line on standard error. There is no figure
    if no report has anything to draw.

    Raises:
        ReportError: no file is a report, one is incomplete, `out` cannot be written, or matplotlib is absent.
    """
    if not paths:
        raise ReportError("no file; give what a benchmark's `--json FILE` wrote")
    reports: list[BenchReport] = []
    for path in paths:
        try:
            reports.append(read_report(path))
        except NotAReportError as error:
            if len(paths) == 1:
                raise
            sys.stderr.write(f"skipped: {error}\n")
    if not reports:
        raise ReportError("none of these files is a report; give what a benchmark's `--json FILE` wrote")
    pages = [report.page() for report in reports]
    if out is None:
        sys.stdout.write(markdown(pages))
        return
    page, picture = (out.with_name(out.name + suffix) for suffix in (".md", ".png"))
    figure = figure and any(each.figure is not None for each in pages)
    if figure:
        need_matplotlib()
    try:
        if figure:
            draw_figures(picture, pages)
        page.write_text(markdown(pages, picture.name if figure else None), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{out} cannot be written: {error}; make its folder first") from error
    sys.stdout.write(f"{page}\n" + (f"{picture}\n" if figure else ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m emi_bench.report`, where typer is not installed. Exit code: 0 done, 2 bad file or place."""
    accept_any_text()
    parser = argparse.ArgumentParser(
        prog="python -m emi_bench.report",
        description="Make a page and a figure from reports of emi bench.",
        epilog="example: python -m emi_bench.report fusion-gpu.json --out fusion-gpu",
    )
    parser.add_argument("files", type=Path, nargs="+", help="what --json FILE wrote")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.png; default: print the page")
    parser.add_argument("--no-figure", action="store_true", help="leave the figure out")
    given = parser.parse_args(arguments)
    try:
        make_report(given.files, given.out, figure=not given.no_figure)
    except ReportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
