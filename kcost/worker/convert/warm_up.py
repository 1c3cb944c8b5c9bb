"""What TensorFlow Serving answers before it serves a version: a request of each signature at each batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from kcost.core.conversion import IMAGE_SIGNATURE, ServingRequest
from kcost.core.errors import InputError, StorageError
from kcost.runtimes.prediction_log import MOST_RECORDS, WARM_UP_FILE, PredictRequest, encode_request
from kcost.worker.convert.endpoint import ModelInput
from kcost.worker.convert.saved_model import ENDPOINT, MoreSignature
from kcost.worker.convert.serving_probes import TEXTS, made_up_images, png
from kcost.worker.inputs import Samples

LARGEST_BYTES = 256 << 20
"""Of the requests together: a server reads them each time that it loads the version."""


def warm_up_requests(
    serving: ServingRequest, inputs: Sequence[ModelInput], more: Sequence[MoreSignature], samples: Samples
) -> list[PredictRequest]:
    """The requests: real samples where there are some, repeated where there are too few.

    None of PACKED_SIGNATURE: a server that batches all signatures refuses inputs whose first axes differ, as those do,
    and does not load a version with a request that it refuses.

    Raises:
        InputError: they are too many, or too large.
    """

    def of(batch: int) -> list[PredictRequest]:
        rows = samples.rows(0, batch).inputs
        arrays = {i.name: rows[i.model_name].astype(i.dtype) for i in inputs}
        of_strings = ((s.name, {s.input_name: _strings(s, inputs, batch)}) for s in more)
        return [PredictRequest(serving.name, ENDPOINT, arrays), *(PredictRequest(serving.name, *s) for s in of_strings)]

    one_row = of(1)
    count = len(one_row) * len(serving.warm_up_batches)
    size = sum(_bytes_of(request.inputs) for request in one_row) * sum(serving.warm_up_batches)
    if count > MOST_RECORDS or size > LARGEST_BYTES:
        raise InputError(
            f"A server warms up with at most {MOST_RECORDS} requests of {LARGEST_BYTES:,} bytes together.",
            received=f"{count} requests of about {size:,} bytes, for the batch sizes "
            f"{', '.join(map(str, serving.warm_up_batches))}",
            remedy="Name fewer or smaller batch sizes.",
        )
    return [request for batch in serving.warm_up_batches for request in of(batch)]


def write_warm_up(folder: Path, requests: Sequence[PredictRequest]) -> None:
    """Writes the requests beside a SavedModel, and reads them back: TensorFlow's reader checks each checksum.

    Raises:
        StorageError: what is read back differs.
    """
    path = folder / WARM_UP_FILE
    path.parent.mkdir(exist_ok=True)
    records = [encode_request(request) for request in requests]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    if [record.numpy() for record in tf.data.TFRecordDataset(str(path))] != records:
        raise StorageError("What a server warms up with is read back as it was written.", received=f"{path}, otherwise")


def _strings(signature: MoreSignature, inputs: Sequence[ModelInput], batch: int) -> np.ndarray:
    strings: Sequence[bytes]
    if signature.name == IMAGE_SIGNATURE:
        shape = tuple(int(size) for size in inputs[0].shape[1:] if size is not None)
        strings = [png(image) for image in made_up_images(batch, shape)]
    else:
        strings = [TEXTS[i % len(TEXTS)].encode() for i in range(batch)]
    array = np.empty(batch, object)
    array[:] = strings
    return array


def _bytes_of(inputs: Mapping[str, np.ndarray]) -> int:
    return sum(sum(map(len, a.ravel())) if a.dtype == object else a.nbytes for a in inputs.values())
