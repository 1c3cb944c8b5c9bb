"""A first-time reader's path: a wheel, an environment of their own, one command on a .keras file, a verdict."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.metadata import Metadata

from kcost.core.process import installed

ROOT = Path(__file__).parents[2]
MODEL = """
import keras
layers = keras.layers.Conv2D(8, 3), keras.layers.Flatten(), keras.layers.Dense(10)
keras.Sequential([keras.Input((8, 8, 1)), *layers]).save("my.keras")
"""


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, cwd=cwd, env={**clean, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def tracked(*what: str) -> list[str]:
    return subprocess.check_output(["git", "ls-files", *what], cwd=ROOT, text=True).splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network, from a copy, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    copied = folder / "source"
    copied.mkdir()
    for name in tracked("kcost", "pyproject.toml", "README.md", "LICENSE"):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes((ROOT / name).read_bytes())
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    run(sys.executable, "-m", "pip", "wheel", copied, *flags, "-w", folder, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_what_it_needs_and_its_metadata_are_valid(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (text,) = (archive.read(n).decode() for n in names if n.endswith(".dist-info/METADATA"))
    assert names >= set(tracked("kcost")), "every file of the package, py.typed and templates among them"
    assert not [n for n in names if n.startswith(("tests", "testing", "benchmarks"))]
    metadata = Metadata.from_email(text, validate=True)
    assert metadata.name == "kcost"
    assert {"all", "jax", "notebook", "serve"} <= set(metadata.provides_extra or ())
    message = message_from_string(text)
    assert message["Description-Content-Type"] == "text/markdown"
    assert str(message.get_payload()).startswith("# kcost")


@pytest.mark.slow
@pytest.mark.skipif(not installed("jax"), reason="needs kcost[jax]")
def test_from_a_wheel_to_a_verdict(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The new environment sees the packages of this one, as no network is at hand; kcost comes from the wheel."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    flags = ("--no-deps", "--no-index", "--quiet", "--target")
    run(sys.executable, "-m", "pip", "install", wheel, *flags, site, cwd=tmp_path)
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("".join(f"{path}\n" for path in others))
    work = tmp_path / "work"
    work.mkdir()
    imported_from = run(python, "-c", "import kcost; print(kcost.__file__)", cwd=work).stdout
    assert Path(imported_from.strip()).is_relative_to(site), "not the checkout"
    run(python, "-c", MODEL, cwd=work, KERAS_BACKEND="jax")
    start = time.perf_counter()
    bench = run(
        *(python, "-m", "kcost", "bench", "my.keras", "--backends", "jax", "--phases", "inference", "--out", "run"),
        cwd=work,
    )
    took_s = time.perf_counter() - start
    assert bench.stdout.splitlines()[0].startswith("my: "), bench.stdout
    assert "Everything: kcost report run --all" in bench.stdout
    run(python, "-m", "kcost", "doctor", cwd=work)
    with capsys.disabled():
        print(f"\nkcost bench my.keras on one backend took {took_s:.1f} s")  # noqa: T201 -- told, never asserted
