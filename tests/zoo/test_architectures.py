"""Whole architectures, in each mode: right, or refused with a reason that names a layer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import keras
import pytest

from .architectures import FAMILIES, MIXTURES, NO_FAMILIES, NOT_ON, application, backbone, backbones
from .conftest import BACKEND, ExportWorkers
from .specimens import Specimen
from .table import MODES, backends_of
from .trial import DEEP, MIXTURE, Trial, show

SHORT = ("load", "quantize dynamic")
WHOLE = [mode for mode in MODES if BACKEND in backends_of(mode)]


@pytest.fixture
def exporters(request: pytest.FixtureRequest) -> ExportWorkers | None:
    """What writes and checks SavedModels, where these are tried."""
    return request.getfixturevalue("workers") if BACKEND in backends_of("export") else None


def test_every_family_of_keras_applications_is_looked_at() -> None:
    modules = {name for name, _ in inspect.getmembers(keras.applications, inspect.ismodule)}
    assert modules - NO_FAMILIES == FAMILIES.keys()


@pytest.mark.parametrize("name", ["BertBackbone"])
def test_a_backbone_is_right_or_refused_by_name(name: str, tmp_path: Path) -> None:
    _check(SHORT, name, backbone(name), tmp_path, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(backbones()))
def test_a_backbone_is_right_or_refused_by_name_in_every_mode(
    name: str, tmp_path: Path, exporters: ExportWorkers | None
) -> None:
    _check(WHOLE, name, backbone(name), tmp_path, exporters)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_an_application_is_right_or_refused_by_name_in_every_mode(
    family: str, tmp_path: Path, exporters: ExportWorkers | None
) -> None:
    if family in NOT_ON.get(BACKEND, ()):
        with pytest.raises(ValueError, match=f"not available with the {BACKEND} backend"):
            application(family)
        return
    _check(WHOLE, FAMILIES[family], application(family), tmp_path, exporters)


def _check(modes: Sequence[str], name: str, specimen: Specimen, folder: Path, exporters: ExportWorkers | None) -> None:
    tolerances = MIXTURE if name in MIXTURES else DEEP
    rows = Trial(show(name, specimen, folder), exporters, tolerances).rows(modes)
    failed = [f"{row.mode}: {row.outcome}: {row.reason}" for row in rows if row.outcome not in ("right", "refused")]
    assert not failed, "\n".join(failed)
