"""The scripts of `.ci`, which are no package, as modules for the tests that call what is in them."""

import importlib.util
from pathlib import Path
from types import ModuleType

_CI = Path(__file__).parents[1] / ".ci"


def script(name: str) -> ModuleType:
    """`.ci/<name>.py`, run as an import runs it."""
    spec = importlib.util.spec_from_file_location(name, _CI / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
