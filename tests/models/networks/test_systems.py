"""The registry: every system is built, described, saved and loaded by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emi_models import EMOTIONS, MODALITIES
from emi_models.checkpoint import load_checkpoint, read_header, save_checkpoint
from emi_models.errors import CheckpointError
from emi_models.networks import SYSTEMS, build_network, describe_config
from emi_models.networks.base import FusionNetwork
from tests.models.networks.zoo import VARIANTS, network, save, windows

every = pytest.mark.parametrize("name", VARIANTS)


def test_the_four_systems_of_the_papers_are_known() -> None:
    assert set(SYSTEMS) == {"taemi", "two_stage", "dual_stage", "semantic_matters"}
    assert {system for system, _ in VARIANTS.values()} == set(SYSTEMS)


@every
def test_a_description_survives_json_and_builds_the_same_network(name: str) -> None:
    net = network(name)
    described = json.loads(json.dumps(describe_config(net.config)))
    assert described == describe_config(net.config)
    again = build_network(VARIANTS[name][0], described, net.config.modalities)
    assert type(again) is type(net)
    assert again.config == net.config


@every
def test_a_network_is_built_on_the_meta_device_and_takes_weights(name: str) -> None:
    net = network(name)
    with torch.device("meta"):
        shell = build_network(VARIANTS[name][0], describe_config(net.config), net.config.modalities)
    assert all(t.is_meta for t in (*shell.parameters(), *shell.buffers()))
    shell.load_state_dict(net.state_dict(), assign=True)
    assert not [n for n, t in (*shell.named_parameters(), *shell.named_buffers()) if t.is_meta]
    assert torch.equal(shell.eval()(windows(2)), net(windows(2)))


@every
def test_a_checkpoint_brings_back_the_network(name: str, tmp_path: Path) -> None:
    net = network(name)
    loaded = load_checkpoint(save(tmp_path / "net.safetensors", net, VARIANTS[name][0]))
    assert isinstance(loaded.network, FusionNetwork)
    assert loaded.network.config == net.config
    assert not loaded.network.training
    assert torch.equal(loaded.network(windows(3)), net(windows(3)))


@every
def test_a_header_without_the_newer_settings_means_their_defaults(name: str, tmp_path: Path) -> None:
    system, chosen = VARIANTS[name]
    path = save(tmp_path / "net.safetensors", network(name), system)
    header = read_header(path)
    config = {key: value for key, value in header.config.items() if key in {"shapes", *chosen}}
    metadata = {field: getattr(header, field) for field in header.__dataclass_fields__} | {"config": config}
    save_file(load_file(path), path, metadata={"emi_checkpoint": json.dumps(metadata)})
    assert load_checkpoint(path).network.config == network(name).config


def test_a_system_that_is_not_the_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="modalities"):
        save(tmp_path / "net.safetensors", network("dual_stage"), "two_stage")


def test_an_unknown_system_is_refused_with_those_there_are() -> None:
    with pytest.raises(CheckpointError, match="two_stage"):
        build_network("emotinet", {}, MODALITIES)


def test_settings_of_another_system_are_refused() -> None:
    config = describe_config(network("taemi").config)
    with pytest.raises(CheckpointError, match="anchor"):
        build_network("two_stage", config, MODALITIES)


def test_a_checkpoint_of_the_other_task_names_no_emotions(tmp_path: Path) -> None:
    path = tmp_path / "bah.safetensors"
    net = network("semantic_matters", task="bah")
    header = read_header(save(path, net, "semantic_matters"))
    assert header.emotions == ()
    assert load_checkpoint(path).network(windows(2)).shape == (2, 1)
    with pytest.raises(CheckpointError, match="emotions"):
        save_checkpoint(path, net, replace(header, emotions=EMOTIONS))
    metadata = {field: getattr(header, field) for field in header.__dataclass_fields__} | {
        "emotions": EMOTIONS
    }
    save_file(load_file(path), path, metadata={"emi_checkpoint": json.dumps(metadata)})
    with pytest.raises(CheckpointError, match="emotions"):
        load_checkpoint(path)
