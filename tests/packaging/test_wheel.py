"""The built wheel, installed into an empty environment, works and carries its types."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MATURIN = Path(sys.executable).with_name("maturin")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([MATURIN, "build", "--release", "--locked", "--quiet", "--out", out], cwd=ROOT, check=True)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_carries_stub_and_type_marker(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert "overlaynet/py.typed" in names
    assert "overlaynet/_core.pyi" in names
    assert any(name.startswith("overlaynet/_core.") and name.endswith(".so") for name in names)
    assert {"overlaynet/data/overlaynet.service", "overlaynet/data/overlaynet.sysusers"} <= set(names)


@pytest.mark.timeout(300)
def test_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    bin_path = tmp_path / "env" / "bin"
    subprocess.run([bin_path / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True)

    def output(*command: str | Path) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    assert "overlaynet" in output(bin_path / "overlaynet", "--help")
    assert "--subnet-file" in output(bin_path / "overlaynet-daemon", "--help")
    program = "import overlaynet; print(overlaynet.PrefixTable({'10.0.0.0/8': 1})['10.0.0.0/8'])"
    assert output(bin_path / "python", "-W", "error", "-c", program) == "1\n"
