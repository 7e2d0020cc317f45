"""The commands about ratings: `emi bench ratings`, `emi bench truth` and `emi bench calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emi_bench.harness import JsonFile, Settings, check_json, progress_bar
from emi_bench.report import give_report
from emi_live.errors import ConfigurationError

__all__ = ["calibrate", "ratings", "truth"]

CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder that keeps the features, so that the next run is quick. Default: nothing is kept.",
    ),
]


def truth(
    ratings: Annotated[
        Path,
        typer.Argument(
            help="CSV with a row for each file: `file` or `text`, then ratings, perhaps `speaker`, `sex` …"
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option(help="The checkpoint that is judged. Default: the bundle's own.")
    ] = None,
    bundle: Annotated[str, typer.Option(help="Whose encoders: compact or taemi.")] = "compact",
    pair: Annotated[
        list[str] | None,
        typer.Option("--pair", help="COLUMN=EMOTION: compare this column with that; may be repeated."),
    ] = None,
    speakers: Annotated[
        str | None,
        typer.Option(help="Score these speakers alone (03,08,…), and fit the baselines on the others."),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            help="off, running or calibrate: a neutral of each speaker's own. calibrate takes it from files "
            "that a group calls neutral."
        ),
    ] = "off",
    cache: CacheOption = None,
    set_: Settings = None,
    json_: JsonFile = None,
) -> None:
    """How well does a checkpoint agree with people's ratings of faces, voices and words?

    By modality and by group, with intervals, next to simple baselines on the same features.

    For example:

    [bold]emi bench ratings emodb emodb.tsv --out emodb[/bold]

    [bold]emi bench truth emodb/ratings.csv --speakers 03,08,13,16 --json emodb.json[/bold]
    """
    from emi_bench.truth.ratings import pairs_of, read_ratings

    check_json(json_)
    rated = read_ratings(ratings)
    pairs = pairs_of(rated, pair or ())
    from emi_live.bundle import find_bundle

    path = checkpoint or find_bundle(bundle).packaged_checkpoint()
    from emi_live.cli.options import bad_use, check_checkpoint

    check_checkpoint(path, bundle)
    from emi_bench.truth.features import FeatureMaker, relative_to_own_neutral
    from emi_bench.truth.measure import measure_truth
    from emi_models.baseline import check_baseline
    from emi_models.store import ModelStore

    with bad_use():
        mode = check_baseline(baseline)
    chosen = [name.strip() for name in (speakers or "").split(",") if name.strip()]
    with (
        progress_bar("loading models") as bar,
        FeatureMaker(bundle, set_ or (), ModelStore(), cache) as maker,
    ):
        features = maker.make(rated.items, bar.show)
        for place, reason in features.problems.items():
            bar.say(f"not read: {rated.items[place].name}: {reason}")
        if mode != "off":
            with bad_use():
                features = relative_to_own_neutral(features, rated.items, maker.ids, mode)
        report = measure_truth(rated, pairs, features, path, maker.ids, chosen, bar.show, mode)
    give_report(json_, report)


def ratings(
    kind: Annotated[str, typer.Argument(help="ferplus, emodb or goemotions.")],
    source: Annotated[
        Path, typer.Argument(help="FER+: valid.csv (with valid.npz); EmoDB: emodb.tsv; GoEmotions: dev.tsv.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for ratings.csv; made if it does not exist.")],
) -> None:
    """Make the file of ratings that `emi bench truth` reads, of a data set as its publishers give it.

    For example: [bold]emi bench ratings ferplus ferplus/valid.csv --out valid[/bold]
    """
    from emi_bench.truth.folders import FOLDERS, write_ratings

    if kind not in FOLDERS:
        raise ConfigurationError(f"no data set {kind!r} is known; there are {', '.join(FOLDERS)}")
    with progress_bar("reading") as bar:
        target = write_ratings(kind, source, out, bar.show)
    typer.echo(f"{target}; next: emi bench truth {target}")


def calibrate(
    ratings: Annotated[
        list[Path], typer.Argument(help="CSVs as of `emi bench truth`, of people who were not trained on.")
    ],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint; it is not changed.")],
    out: Annotated[Path, typer.Option("--out", help="Where the checkpoint with intervals is written.")],
    bundle: Annotated[str, typer.Option(help="Whose encoders: compact or taemi.")] = "compact",
    cache: CacheOption = None,
    set_: Settings = None,
    json_: JsonFile = None,
) -> None:
    """Give a checkpoint its 90 % intervals: half of the ratings calibrate them, the other half tests them.

    For example:

    [bold]emi bench calibrate valid/ratings.csv dev/ratings.csv --checkpoint mine.safetensors
    --out calibrated.safetensors[/bold]
    """
    from emi_bench.truth.ratings import pairs_of, read_ratings
    from emi_live.cli.options import check_checkpoint, check_writable

    check_json(json_)
    check_writable("--out", out)
    read = [read_ratings(path) for path in ratings]
    pairs = [pairs_of(each, ()) for each in read]
    check_checkpoint(checkpoint, bundle)
    from emi_bench.truth.calibrate import RatedSet
    from emi_bench.truth.calibrate import calibrate as make
    from emi_bench.truth.features import FeatureMaker
    from emi_models.checkpoint import calibrate_checkpoint
    from emi_models.store import ModelStore

    with (
        progress_bar("loading models") as bar,
        FeatureMaker(bundle, set_ or (), ModelStore(), cache) as maker,
    ):
        sets = []
        for each, chosen in zip(read, pairs, strict=True):
            features = maker.make(each.items, bar.show)
            for place, reason in features.problems.items():
                bar.say(f"not read: {each.items[place].name}: {reason}")
            sets.append(RatedSet(each, chosen, features))
        calibration, report = make(checkpoint, sets, maker.ids, bar.show)
    calibrate_checkpoint(checkpoint, out, calibration)
    give_report(json_, report)
    if json_ != "-":
        typer.echo(f"written: {out}; its ONNX export, if it has one, must be made again")
