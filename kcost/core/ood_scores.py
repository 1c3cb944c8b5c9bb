"""How sure a model is of each example of its own test data and of other data, stored: by that they are told apart."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from kcost.core.answer import AnswerChoice
from kcost.core.artifact import Dataset, sha256_of
from kcost.core.errors import SchemaError
from kcost.core.npz_record import write_npz
from kcost.core.pixels import PixelScale
from kcost.core.schema import VERSIONS, Record, describe_validation


class OodScoresHeader(Record):
    """What the stored figures are of."""

    schema_: int = Field(default=VERSIONS["predictions"], alias="schema")
    model: str
    model_sha256: str
    backend: str
    dataset: Dataset
    other: Dataset
    unit: str = Field(description="what one example is")
    choice: AnswerChoice = Field(default=AnswerChoice(), description="what the user said of the answers")
    pixels: PixelScale | None = Field(default=None, description="of images, as the user said")
    no_energy_because: str | None = Field(default=None, description="why there is no energy; None where there is")


@dataclass(frozen=True, eq=False)
class OodScores:
    """How sure a model is of examples: the larger, the surer.

    Attributes:
        confidence: probability of the class that was decided for, of a sentence its least sure word's; shape (n,),
            float64.
        energy: log of the sum of exp(logits), of a sentence the mean over its words; shape (n,), float64. None where
            the model shows no logits. It is the negative of what papers call energy: it grows with sureness.
    """

    confidence: np.ndarray
    energy: np.ndarray | None


@dataclass(frozen=True, eq=False)
class StoredOodScores:
    """How sure a model is of its own test data and of other data. `sha256` is that of the file."""

    header: OodScoresHeader
    own: OodScores
    other: OodScores
    sha256: str


def write_ood_scores(path: Path, header: OodScoresHeader, own: OodScores, other: OodScores) -> None:
    """Writes an npz file, atomically. Raises StorageError where it cannot be written."""
    write_npz(path, header, {"own": own, "other": other}, ("confidence", "energy"))


def read_ood_scores(path: Path) -> StoredOodScores:
    """Reads what `write_ood_scores` wrote.

    Raises:
        SchemaError: the file is no such npz, or arrays in it do not fit together.
        FileNotFoundError: there is none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = OodScoresHeader.model_validate_json(str(file["header"]))
            own, other = (
                OodScores(file[f"{name}/confidence"], file.get(f"{name}/energy")) for name in ("own", "other")
            )
        for part in (own, other):
            if part.confidence.ndim != 1 or not len(part.confidence):
                raise ValueError("a confidence for each example")
            if (part.energy is None) != (header.no_energy_because is not None):
                raise ValueError("an energy, or why there is none")
            if part.energy is not None and part.energy.shape != part.confidence.shape:
                raise ValueError("as many energies as confidences")
    except FileNotFoundError:
        raise
    except ValidationError as error:
        raise _damaged(path, describe_validation(error)) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from error
    return StoredOodScores(header, own, other, sha256_of(path))


def _damaged(path: Path, fault: str) -> SchemaError:
    return SchemaError(
        "Stored scores of examples are an npz file that kcost wrote.",
        f"{path}: {fault}",
        "Delete it: kcost makes it again.",
    )
