"""The fake has no name that the real library lacks."""

from __future__ import annotations

from importlib import import_module

from emi_engine.tensorrt.plans import Library
from tests.engine.tensorrt.fake import FakeApi

OURS = {"exchange", "model", "log", "values", "inputs", "session", "engine", "addresses", "network", "flags"}


def test_every_name_of_the_fake_is_the_real_library_s(rtx: Library) -> None:
    assert rtx.version
    real = import_module("tensorrt_rtx_bindings")
    for fake in FakeApi().classes:
        names = {name for name in vars(fake) if not name.startswith("_")} - OURS
        members = set(getattr(fake, "__members__", ()))
        missing = {name for name in names | members if not hasattr(getattr(real, fake.__name__), name)}
        assert not missing, fake.__name__
