"""Installed packages, as `importlib.metadata` finds them."""

from collections.abc import Mapping
from pathlib import Path

import pytest


def install_entry_points(
    folder: Path, monkeypatch: pytest.MonkeyPatch, groups: Mapping[str, Mapping[str, str]]
) -> None:
    """Have a package installed, until the test ends, that has these entry points by group."""
    metadata = folder / "another_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: another-package\nVersion: 1.0\n"
    )
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{name} = {of}" for name, of in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)
