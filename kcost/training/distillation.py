"""Learning from the answers of another model beside the labels.

Source: Hinton, Vinyals and Dean (2015), Distilling the Knowledge in a Neural Network, section 2, at temperature 1.
"""

from __future__ import annotations

import keras
import numpy as np

from kcost.training.tasks import Task


def soft_targets(teacher: keras.Model, task: Task, batch_size: int) -> np.ndarray:
    """What a model answers on the training split: probabilities, shape (*labels, classes), float16.

    Positions that batches cut off, as they are padding, are left at 0.
    """
    batches, labels = task.batches("train", batch_size, seed=None), task.labels("train")
    targets = np.zeros((*labels.shape, teacher.output_shape[-1]), np.float16)
    for i in range(len(batches)):
        rows, length = batches.rows(i)
        answers = np.asarray(teacher.predict_on_batch(batches[i][0]), np.float32)
        if task.answers.main.logits:
            answers = np.exp(answers - answers.max(-1, keepdims=True))
            answers /= answers.sum(-1, keepdims=True)
        if labels.ndim == 1:
            targets[rows] = answers
        else:
            targets[rows, :length] = answers
    return targets
