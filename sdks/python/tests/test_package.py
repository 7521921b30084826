import ast
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from smsgateway import __version__

PACKAGE = Path(find_spec("smsgateway").origin).parent
PROJECT = Path(__file__).parents[1]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_the_package_needs_only_httpx_and_pydantic():
    everything = {name for path in PACKAGE.glob("*.py") for name in imported(path)}
    assert everything - sys.stdlib_module_names == {"smsgateway", "httpx", "pydantic"}


def test_only_the_transport_knows_httpx():
    knowing = {path.name for path in PACKAGE.glob("*.py") if "httpx" in set(imported(path))}
    assert knowing == {"transport.py"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return Path(next(WheelBuilder(str(PROJECT)).build(directory=str(tmp_path_factory.mktemp("d")))))


def test_the_wheel_is_typed_and_holds_the_package_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert "smsgateway/py.typed" in names
    assert {n.partition("/")[0] for n in names} == {
        "smsgateway",
        f"smsgateway_client-{__version__}.dist-info",
    }
    assert "Requires-Dist: httpx" in metadata
    assert f"Version: {__version__}" in metadata
