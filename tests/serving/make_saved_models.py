"""Writes the SavedModel of the serving tests, in several versions: `python -m tests.serving.make_saved_models FOLDER`.

FOLDER/half_plus_two/1 and /2 answer x * 0.5 + 2 and x * 0.5 + 3, as TensorFlow Serving's own example does, by
signatures of every kind; FOLDER/images/1 is a convolution, which libtensorflow ends the process on where an axis is
missing. models.config leaves out FOLDER/counter/1, which adds what its signature `train` has counted, and
FOLDER/aborts/1 and FOLDER/hangs/1: on zeros the one ends its process, and the other never returns.
"""

import sys
from pathlib import Path

import tensorflow as tf

from tests.serving.models_config import MODELS_CONFIG


class HalfPlus(tf.Module):
    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = tf.Variable(offset)

    def halved(self, x):
        return x * 0.5 + self.offset

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def serve(self, x):
        return {"y": self.halved(x)}

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, "a"), tf.TensorSpec((None,), tf.int32, "b")])
    def two(self, a, b):
        return {"sum": tf.reduce_sum(a, 1) + tf.cast(b, tf.float32), "ratio": a / tf.cast(b, tf.float32)[:, None]}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def text(self, image_bytes):
        return {"length": tf.strings.length(image_bytes), "copy_bytes": image_bytes}

    @tf.function(input_signature=[tf.TensorSpec((), tf.float32, "s")])
    def scalar(self, s):
        return {"t": s * 2}

    @tf.function(
        input_signature=[tf.TensorSpec((None,), d, d) for d in ("bool", "uint8", "int64", "uint64", "float64")]
    )
    def kinds(self, *inputs):
        return dict(zip(("bool", "uint8", "int64", "uint64", "float64"), inputs, strict=True))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "milliseconds")])
    def slow(self, milliseconds):
        """Counts for about as long as its first number says, in a loop that nothing shortens."""
        steps = tf.cast(tf.reduce_max(milliseconds), tf.int32)
        start, done = tf.timestamp(), tf.constant(0)
        while tf.timestamp() < start + tf.cast(steps, tf.float64) / 1000:
            done += 1
        return {"steps": tf.cast(done, tf.float32) * 0 + milliseconds}

    def examples(self, serialized):
        return tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "inputs")])
    def regress(self, inputs):
        return {"outputs": self.halved(self.examples(inputs))}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "inputs")])
    def classify(self, inputs):
        x = self.examples(inputs)
        labels = tf.tile([["low", "high"]], [tf.shape(x)[0], 1])
        return {"classes": labels, "scores": tf.concat([1 - x, x], 1)}


class Images(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones((3, 3, 1, 2)))

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.float32, "images")])
    def serve(self, images):
        return {"sums": tf.reduce_sum(tf.nn.conv2d(images, self.kernel, 1, "VALID"), (1, 2))}


class Counter(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def serve(self, x):
        return {"y": x + self.steps}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def train(self, x):
        return {"steps": 0 * x + self.steps.assign_add(1.0)}


class Aborts(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def serve(self, x):
        def ended():
            # A convolution of an image without its axis of rows ends the process, too, but not on each machine.
            with tf.control_dependencies([tf.raw_ops.Abort(error_msg="zeros")]):
                return tf.constant(0.0)

        return {"y": x * 2 + tf.cond(tf.reduce_all(tf.equal(x, 0.0)), ended, lambda: tf.constant(0.0))}


class Hangs(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def serve(self, x):
        done = tf.constant(0)
        while tf.reduce_all(tf.equal(x, 0.0)):
            done += 1
        return {"y": x * 2 + tf.cast(done, tf.float32)}


def main(folder: Path) -> None:
    for version, offset in ((1, 2.0), (2, 3.0)):
        model = HalfPlus(offset)
        names = ("two", "text", "scalar", "kinds", "slow", "regress", "classify")
        signatures = {"serving_default": model.serve, **{name: getattr(model, name) for name in names}}
        path = folder / "half_plus_two" / str(version)
        tf.saved_model.save(model, str(path), signatures)
        name_methods(path / "saved_model.pb")
    images = Images()
    tf.saved_model.save(images, str(folder / "images" / "1"), {"serving_default": images.serve})
    counter = Counter()
    signatures = {"serving_default": counter.serve, "train": counter.train}
    tf.saved_model.save(counter, str(folder / "counter" / "1"), signatures)
    for name, model in (("aborts", Aborts()), ("hangs", Hangs())):
        tf.saved_model.save(model, str(folder / name / "1"), {"serving_default": model.serve})
    (folder / "models.config").write_text(MODELS_CONFIG)  # last: it says that the models are there


def name_methods(file: Path) -> None:
    """Gives two signatures the methods that estimators give them: `tf.saved_model.save` knows predict alone."""
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name in ("regress", "classify"):
        message.meta_graphs[0].signature_def[name].method_name = f"tensorflow/serving/{name}"
    file.write_bytes(message.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
