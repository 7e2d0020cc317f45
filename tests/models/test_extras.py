from __future__ import annotations

import subprocess
import sys

import pytest

from emi_models.errors import MissingPackageError
from emi_models.libraries import lacking, require


def test_what_is_installed_is_not_lacking() -> None:
    assert lacking("numpy", "safetensors", extra="train") is None
    require("numpy", extra="train", what="a test")


def test_one_line_names_the_packages_and_the_extra() -> None:
    with pytest.raises(MissingPackageError) as caught:
        require("numpy", "no_such_one", "no_such_two", extra="gpu", what="a test")
    (line,) = str(caught.value).splitlines()
    assert "no_such_one, no_such_two" in line
    assert "numpy" not in line
    assert "emi-live[gpu]" in line


def test_nothing_is_imported_to_find_out() -> None:
    code = "import sys; from emi_models.libraries import lacking; lacking('torch', extra='train'); "
    done = subprocess.run([sys.executable, "-c", f"{code}sys.exit('torch' in sys.modules)"], check=False)
    assert done.returncode == 0
