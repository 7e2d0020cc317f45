from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from emi_bench.cli import app
from emi_bench.systems import VARIANTS, TrainingJob, corpus_of, kept_result, probes_of
from emi_bench.systems_report import Variant
from emi_live.cli.errors import run_app
from emi_live.errors import ConfigurationError
from emi_models import MODALITIES
from emi_models.data import open_clips
from emi_models.data.batches import ClipWindows, collate
from emi_models.data.synth import SynthConfig, SynthCorpus, write_corpus
from emi_models.training.config import TrainConfig
from emi_models.training.fit import network_for
from emi_models.training.papers import recipe_of

CORPUS = SynthCorpus(SynthConfig(clips=60, seed=1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synth"
    write_corpus(CORPUS, folder, lambda _: None)
    return folder


def job(data: Path, runs: Path, epochs: int = 1) -> TrainingJob:
    return TrainingJob(
        variant="taemi",
        seed=0,
        epochs=epochs,
        data=data,
        description=open_clips(data).description,
        runs=runs,
    )


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["systems", *arguments], "emi bench")
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("chosen", VARIANTS, ids=lambda chosen: chosen.name)
def test_every_variant_is_a_network_for_the_corpus_and_settings_that_training_takes(chosen: Variant) -> None:
    network = network_for(chosen.system, recipe_of(chosen.system), CORPUS, chosen.network)
    window, _ = collate([ClipWindows(CORPUS, "valid")[index] for index in range(3)])
    with torch.inference_mode():
        whole = network.eval()(window)
        for modality in MODALITIES:
            differs = not torch.equal(whole, network(window.without(modality)))
            assert differs == (modality in network.config.modalities)
    nowhere = Path("nowhere")
    settings = TrainingJob(
        variant=chosen.name, seed=1, epochs=2, data=nowhere, description="", runs=nowhere
    ).settings
    TrainConfig.model_validate({"training": settings["training"], "network": settings["network"]})
    assert json.loads(json.dumps(settings)) == settings  # so that a kept run's can be compared with it


def test_variants_have_names_of_their_own_and_no_two_are_the_same() -> None:
    assert len({chosen.name for chosen in VARIANTS}) == len(VARIANTS)
    described = {
        json.dumps([v.system, dict(v.network), dict(v.training), v.raters], sort_keys=True) for v in VARIANTS
    }
    assert len(described) == len(VARIANTS)


def test_the_corpus_of_a_folder_is_made_again_from_its_truth(data: Path, tmp_path: Path) -> None:
    corpus = corpus_of(data)
    assert corpus is not None
    assert corpus.config == CORPUS.config
    assert len(probes_of(corpus)) == 5
    assert corpus_of(tmp_path) is None
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="cannot be understood"):
        corpus_of(tmp_path)


@pytest.mark.slow
def test_one_command_trains_compares_and_does_nothing_twice(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--runs", str(runs), "--epochs", "1", "--seeds", "1"]
    chosen = ["--only", "taemi", "--only", "two_stage", "--only", "never_text", "--jobs", "1"]
    assert command(*arguments, *chosen, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "systems.json").read_text(encoding="utf-8"))
    assert [row["variant"]["name"] for row in told["rows"]] == ["taemi", "two_stage", "never_text"]
    assert (out / "systems.png").read_bytes().startswith(b"\x89PNG")
    by_name = {run["variant"]: run for run in told["runs"]}
    assert by_name["two_stage"]["epochs"] == {"text": 1, "audio": 1, "vision": 1, "fusion": 1}
    assert by_name["never_text"]["rho_without"]["text"] == by_name["never_text"]["rho"]
    assert by_name["taemi"]["n"] == len(CORPUS.ids("valid"))
    assert str(tmp_path) not in json.dumps(told)

    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    assert command(*arguments, *chosen) == 0
    assert "3 runs had been done before it" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before

    done = job(data, runs)
    kept = kept_result(done)
    assert kept is not None
    assert kept_result(replace(done, seed=7)) is None
    with pytest.raises(ConfigurationError, match="max_epochs"):
        kept_result(replace(done, epochs=2))
    done.path.write_text(json.dumps({**asdict(kept), "unknown": 1}))
    with pytest.raises(ConfigurationError, match="unknown"):
        kept_result(done)


def test_what_cannot_be_compared_is_said_before_anything_is_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"))
    assert command("--data", str(data), *where, "--only", "teami") == 2
    assert "no variant is called teami; there are taemi" in capsys.readouterr().err
    assert command("--data", str(data), *where, "--only", "raters") == 2
    assert "raters.csv" in capsys.readouterr().err
    assert command("--data", str(tmp_path / "nowhere"), *where) != 0
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
