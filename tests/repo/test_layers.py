"""The arrows between packages and modules, as drawn in the design, hold."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("emi_live", "emi_engine", "emi_models", "emi_bench", "emi_configs")


def test_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def names_of(tree: ast.Module) -> set[str]:
    """The names that a module has at its top level, also those below an `if` or a `try`."""
    names: set[str] = set()
    statements: list[ast.stmt] = [*tree.body]
    for node in statements:  # it grows
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names |= {
                part.id for each in targets if each for part in ast.walk(each) if isinstance(part, ast.Name)
            }
        elif isinstance(node, ast.If | ast.Try):
            statements += [*node.body, *node.orelse]
    return names


def exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def test_every_name_in_all_exists() -> None:
    """Read, not imported: that would load all libraries."""
    seen = 0
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        for folder in spec.submodule_search_locations or []:
            for path in Path(folder).rglob("*.py"):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                there = names_of(tree)
                if "__getattr__" in there:  # names that are loaded when they are asked for
                    parts = path.relative_to(folder).with_suffix("").parts
                    module = importlib.import_module(".".join([package, *parts]).removesuffix(".__init__"))
                    there |= {name for name in exported(tree) if hasattr(module, name)}
                missing = {*exported(tree)} - there
                assert not missing, f"__all__ of {path} names {missing}, which do not exist"
                seen += len(exported(tree))
    assert seen > 500


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_can_be_imported(package: str) -> None:
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__}.__all__ names {name}, which does not exist"


def test_importing_emi_live_loads_no_heavy_library_and_starts_no_thread() -> None:
    heavy = ("torch", "cv2", "mediapipe", "transformers", "zmq", "sounddevice", "av", "onnxruntime")
    code = (
        "import sys, threading, emi_live, emi_live.cli.live; "
        f"print([m for m in {heavy!r} if m in sys.modules], threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"


def test_networks_and_engines_import_without_camera_libraries() -> None:
    """They run on a bare GPU machine, without anything of the live side."""
    absent = ("zmq", "cv2", "sounddevice", "mediapipe", "av", "rich", "typer", "pydantic", "faster_whisper")
    code = (
        "import sys\n"
        f"for name in {absent!r}: sys.modules[name] = None\n"
        "import emi_models.checkpoint, emi_models.inputs, emi_models.encoders, emi_engine\n"
        "from emi_engine import load_engine\n"
        "from emi_models.checkpoint import packaged_checkpoint\n"
        "from emi_models.inputs import FusionInputs\n"
        "with load_engine(packaged_checkpoint('compact'), 'torch') as engine:\n"
        "    print(engine.infer(FusionInputs.empty(engine.shapes)).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 6)", done.stderr


def test_threads_are_created_in_one_place() -> None:
    sources = [
        path
        for folder in ("realtime", "engine", "models", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(sources) > 100
    assert [path.name for path in sources if "threading.Thread(" in path.read_text(encoding="utf-8")] == [
        "worker.py"
    ]
