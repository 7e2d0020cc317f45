from __future__ import annotations

from typing import Any, cast

import pytest

from emi_bench.peers import measure_peers
from emi_live.errors import ConfigurationError


@pytest.mark.slow
def test_every_message_that_arrives_is_timed() -> None:
    report = measure_peers(["psi"], 2.0, "127.0.0.1:1883")
    (row,) = cast("list[dict[str, Any]]", report["peers"])
    assert row["kind"] == "psi"
    assert row["added_ms"]["n"] >= 8
    assert 0 <= row["added_ms"]["median"] < 1_000


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lsl"):
        measure_peers(["parrot"], 2.0, "")
