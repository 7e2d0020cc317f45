"""A training that is cut off anywhere and resumed ends with the very same weights."""

from __future__ import annotations

import hashlib
import io
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from emi_models.data import DataError
from emi_models.errors import TrainingError
from emi_models.training.config import TrainConfig
from emi_models.training.fit import fit
from tests.models.training.sets import memory_set
from tests.models.training.small import CutOff, small

CLIPS = memory_set(24, 8)


class PowerCutError(Exception):
    """Nothing more is done."""


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["taemi", "two_stage", "dual_stage", "semantic_matters"])
def test_cut_off_after_any_line_and_resumed_gives_the_same_bits(system: str, tmp_path: Path) -> None:
    config = small(system, max_epochs=2, patience=2)
    if system == "two_stage":  # with two stages in place of five
        config = config.model_copy(update={"network": {**config.network, "modalities": ["text"]}})
    told = io.StringIO()
    whole = fit(system, CLIPS, tmp_path / "whole", config, console=Console(file=told, width=200))
    trained = told.getvalue().partition("learned weights")[0]  # that line comes after the checkpoint
    lines = trained.count("\n")
    assert lines == 2 + sum(len(stage.history) + 1 for stage in whole.stages)
    for at in range(3, lines + 1):
        out = tmp_path / f"cut{at}"
        with pytest.raises(PowerCutError):
            fit(system, CLIPS, out, config, console=CutOff(at, PowerCutError()).console())
        assert not (out / "checkpoint.safetensors").exists()
        again = fit(system, CLIPS, out, config, resume=True)
        assert same(weights(out), weights(tmp_path / "whole")), f"cut off at line {at} of {lines}"
        assert [stage.history for stage in again.stages] == [stage.history for stage in whole.stages]


def test_what_a_plateau_has_seen_is_kept(tmp_path: Path) -> None:
    config = small("two_stage", max_epochs=9, learning_rate=1.0)
    config = config.model_copy(update={"network": {**config.network, "modalities": ["text"]}})
    whole = fit("two_stage", CLIPS, tmp_path / "whole", config)
    rates = [row["learning_rate"] for row in whole.stages[0].history]
    assert set(rates) == {1.0, 0.5}
    at = 2 + rates.index(0.5)  # with three epochs counted of the four that lower the rate
    with pytest.raises(PowerCutError):
        fit("two_stage", CLIPS, tmp_path / "cut", config, console=CutOff(at, PowerCutError()).console())
    again = fit("two_stage", CLIPS, tmp_path / "cut", config, resume=True)
    assert again.stages == whole.stages
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_cut_off_again_and_again(tmp_path: Path) -> None:
    config = small("dual_stage")
    fit("dual_stage", CLIPS, tmp_path / "whole", config)
    cuts = 0
    for _ in range(20):
        try:
            console = CutOff(5, PowerCutError()).console()
            fit("dual_stage", CLIPS, tmp_path / "cut", config, resume=True, console=console)
            break
        except PowerCutError:
            cuts += 1
    assert cuts >= 3
    fit("dual_stage", CLIPS, tmp_path / "cut", config, resume=True)
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_cut_off_when_patience_has_run_out_no_further_epoch_is_trained(tmp_path: Path) -> None:
    config = small("taemi", max_epochs=30, learning_rate=0.1, patience=2)
    whole = fit("taemi", CLIPS, tmp_path / "whole", config)
    assert len(whole.stages[0].history) < 30
    in_the_way = tmp_path / "cut" / "stages" / "1-fusion" / "result.json"
    in_the_way.mkdir(parents=True)
    with pytest.raises(DataError, match=r"result\.json"):
        fit("taemi", CLIPS, tmp_path / "cut", config)
    in_the_way.rmdir()
    assert fit("taemi", CLIPS, tmp_path / "cut", config, resume=True).stages == whole.stages
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_ctrl_c_is_an_exception_and_leaves_a_state(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    config = small("taemi", max_epochs=4)
    fit("taemi", CLIPS, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        fit("taemi", CLIPS, tmp_path / "cut", config, console=CutOff(4, KeyboardInterrupt()).console())
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "cut" / "stages" / "1-fusion" / "last.ckpt").is_file()
    fit("taemi", CLIPS, tmp_path / "cut", config, resume=True)
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = fit("taemi", CLIPS, tmp_path, small("taemi"))
    before = weights(tmp_path)
    assert fit("taemi", CLIPS, tmp_path, small("taemi"), resume=True) == first
    assert same(weights(tmp_path), before)


def test_prefixes_and_like_batches_are_resumed_too(tmp_path: Path) -> None:
    values = small("taemi", max_epochs=4).model_dump(exclude_defaults=True)
    config = TrainConfig.model_validate(values | {"data": {"prefixes": 0.7, "bucketed": True}})
    fit("taemi", CLIPS, tmp_path / "whole", config)
    with pytest.raises(PowerCutError):
        fit("taemi", CLIPS, tmp_path / "cut", config, console=CutOff(5, PowerCutError()).console())
    fit("taemi", CLIPS, tmp_path / "cut", config, resume=True)
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    plain = fit("taemi", CLIPS, tmp_path / "plain", small("taemi", max_epochs=4))
    assert not same(weights(plain.checkpoint.parent), weights(tmp_path / "whole"))


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name) % 1000)  # what the caller has drawn is no matter
        fit("taemi", CLIPS, tmp_path / name, small("taemi", seed=seed))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_a_run_that_is_there_is_not_touched_unless_asked(tmp_path: Path) -> None:
    fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=1))
    before = hashlib.sha256((tmp_path / "checkpoint.safetensors").read_bytes()).digest()
    with pytest.raises(TrainingError, match="--resume"):
        fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=1))
    with pytest.raises(TrainingError, match="max_epochs"):
        fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=2), resume=True)
    with pytest.raises(TrainingError, match="train was 24"):
        fit("taemi", memory_set(20, 8), tmp_path, small("taemi", max_epochs=1), resume=True)
    with pytest.raises(TrainingError, match="another run"):
        fit("semantic_matters", CLIPS, tmp_path, small("semantic_matters", max_epochs=1), resume=True)
    assert hashlib.sha256((tmp_path / "checkpoint.safetensors").read_bytes()).digest() == before
    fit("semantic_matters", CLIPS, tmp_path, small("semantic_matters", max_epochs=1), force=True)
    assert hashlib.sha256((tmp_path / "checkpoint.safetensors").read_bytes()).digest() != before


def test_force_removes_nothing_but_a_run(tmp_path: Path) -> None:
    mine = tmp_path / "stages" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("a photograph")
    fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=1), force=True)
    assert mine.read_text() == "a photograph"


def test_a_checkpoint_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"precious")
    with pytest.raises(TrainingError, match="--force"):
        fit("taemi", CLIPS, tmp_path, small("taemi"))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR."])
def test_a_damaged_state_is_said_and_nothing_in_it_runs(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        fit("taemi", CLIPS, tmp_path, small("taemi"), console=CutOff(4, PowerCutError()).console())
    (tmp_path / "stages" / "1-fusion" / "last.ckpt").write_bytes(content)
    with pytest.raises(TrainingError, match="is damaged"):
        fit("taemi", CLIPS, tmp_path, small("taemi"), resume=True)
    assert not Path("/tmp/owned").exists()  # noqa: S108  # where the state would have written
