from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emi_models import device
from emi_models.device import choose_device, gpus_here
from emi_models.errors import TrainingError


def test_auto_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(TrainingError, match="cuda:1 is not there: PyTorch sees 1 GPUs"):
        choose_device("cuda:1")
    with pytest.raises(TrainingError, match="no device is called 'tpu'"):
        choose_device("tpu")


def test_gpus_are_counted_without_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_here() == 0
    (tmp_path / "dxg").touch()
    assert gpus_here() == 1
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus_here() == 2
    for shown, count in (("1", 1), ("", 0), ("0,1,2", 2), ("-1", 0), ("0,-1,1", 1), ("GPU-8932f937", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert gpus_here() == count
