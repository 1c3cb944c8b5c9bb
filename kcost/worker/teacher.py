"""A model whose answers another one learns beside the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import keras

from kcost import data
from kcost.core.artifact import Artifact, open_model
from kcost.core.errors import InputError
from kcost.data.tokenize import WordPiece
from kcost.data.tokenizer_files import read_tokenizer
from kcost.models.loading import load_keras_file


class Teacher(NamedTuple):
    """A loaded model and its artifact."""

    name: str
    folder: Path
    loaded: keras.Model
    about: Artifact

    def record(self) -> dict[str, Any]:
        """What a student's artifact says of it: which it was, its size, and what making it cost."""
        usd = [step.cost.usd for step in self.about.steps if step.cost is not None]
        known = bool(usd) and None not in usd
        return {
            "teacher_sha256": self.about.model_sha256,
            "teacher_parameters": self.about.parameters,
            "teacher_usd": sum(u for u in usd if u is not None) if known else None,
        }

    def pieces(self) -> WordPiece:
        """Its vocabulary."""
        return read_tokenizer(self.folder)

    def refuse_other_data(self, data_set: data.DataSet) -> None:
        """Raises InputError where it answers with other classes than the data have, or takes pixels otherwise."""
        names = data_set.tag_names if isinstance(data_set, data.TagSet) else data_set.label_names
        pixels = self.about.pixels
        if self.about.task != data_set.task or self.about.label_names != names:
            received = f"{self.name} for {self.about.task}: {', '.join(self.about.label_names) or 'no names'}"
        elif pixels is not None and pixels.scale != "0-1":
            received = f"{self.name}, which takes pixels {pixels.scale}"
        else:
            return
        raise InputError(
            f"A teacher answers on the student's data: {data_set.task}, {', '.join(names)}.",
            received=received,
            remedy="Name a model that kcost trained on the same data.",
        )


def open_teacher(folder: Path) -> Teacher:
    """Loads a teacher.

    Raises:
        ArtifactError: nothing is there, or it cannot be loaded.
        InputError: a bare `.keras` file: nothing says what its classes are.
    """
    model = open_model(folder)
    if model.artifact is None:
        raise InputError(
            "A teacher is an artifact folder, which says what its classes are.",
            received=str(folder),
            remedy="Give the folder that `kcost train` made.",
        )
    return Teacher(model.name, model.keras_file.parent, load_keras_file(model.keras_file), model.artifact)
