"""Writes the models of the export tests: `python -m tests.ship.make_models FOLDER`, KERAS_BACKEND picks the backend.

cnn.keras and bert.keras come with cnn.npz and bert.npz: inputs, and the outputs that this backend gives for them.
"""

import os
import sys
from pathlib import Path

from kcost.worker.isolate import OTHERS, hide

BACKEND = os.environ["KERAS_BACKEND"]
hide(OTHERS[BACKEND])

import keras  # noqa: E402
import keras_nlp  # noqa: E402
import numpy as np  # noqa: E402

layers = keras.layers
LENGTH, VOCABULARY = 12, 40


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 12, 1), name="images"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )


def bert() -> keras.Model:
    encoder = keras_nlp.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=32,
    )
    x = layers.Dropout(0.1)(encoder.output["sequence_output"])
    return keras.Model(encoder.input, layers.Dense(5, name="logits")(x))


def save(model: keras.Model, inputs: dict[str, np.ndarray], folder: Path, name: str) -> None:
    for weight in model.weights:  # larger than at the start, so that outputs differ clearly between inputs
        weight.assign(weight + np.random.default_rng(len(weight.path)).normal(0, 0.1, weight.shape))
    model.save(folder / f"{name}.keras")
    outputs = model(inputs if len(inputs) > 1 else next(iter(inputs.values())), training=False)
    np.savez(folder / f"{name}.npz", outputs=keras.ops.convert_to_numpy(outputs), **inputs)


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)  # the weights of each run are the same: int8 is close on some, not on all
    random = np.random.default_rng(0)
    save(cnn(), {"images": random.random((20, 12, 12, 1), dtype=np.float32)}, folder, "cnn")
    mask = (np.arange(LENGTH) < random.integers(1, LENGTH + 1, (5, 1))).astype(np.int32)
    tokens = {
        "token_ids": random.integers(0, VOCABULARY, (5, LENGTH)).astype(np.int32) * mask,
        "segment_ids": np.zeros((5, LENGTH), np.int32),
        "padding_mask": mask,
    }
    save(bert(), tokens, folder, "bert")
    if BACKEND == "tensorflow":
        odd_models(folder)
        saved_models(folder)


def odd_models(folder: Path) -> None:
    image = keras.Input((8, 8, 3), name="2 images")
    counts = keras.Input((None,), dtype="int64", name="counts-per.day")
    pooled = layers.GlobalAveragePooling2D()(image)
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3)(counts))
    one, two = keras.Input((3,), name="lambda"), keras.Input((3,), name="self")
    shared = layers.Dense(2, name="shared")
    several = {"images": shared(pooled), "sum": layers.Add()([shared(embedded), shared(one), shared(two)])}
    keras.Model([image, counts, one, two], several).save(folder / "several.keras")
    x = keras.Input((4,))
    keras.Model(x, layers.Lambda(lambda t: t * 2, name="doubled")(x)).save(folder / "lambda.keras")
    keras.Model(x, layers.Dense(3, dtype="bfloat16", name="low")(x)).save(folder / "bfloat16.keras")
    keras.Model(x, layers.Dense(3)(x)).save(folder / "other.keras")
    wide = keras.Input((None, None, 3))
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 20)(wide))
    keras.Model(wide, y).save(folder / "wide.keras")
    keras.Model(x, layers.Dense(3, name="größe")(x)).save(folder / "name.keras")
    image = keras.Input((9, 9, 8))
    grouped = layers.Conv2D(12, 3, groups=4, strides=2, padding="same", activation="relu", name="grouped")(image)
    each = layers.Conv2D(24, 3, groups=12, dilation_rate=2, padding="same", activation="relu", name="each")(grouped)
    strided = layers.Conv2D(24, 3, groups=24, strides=2, padding="same", name="strided")(each)
    keras.Model(image, strided).save(folder / "grouped.keras")
    fixed = keras.Input(batch_shape=(2, 4))
    keras.Model(fixed, layers.Dense(3)(fixed)).save(folder / "fixed.keras")


def saved_models(folder: Path) -> None:
    """SavedModels that Keras would not write, and what TensorFlow reads in the first one, as JSON."""
    import json

    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    class Plain(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec((None, 3), tf.float32, "a"),
                tf.TensorSpec((), tf.int64, "b"),
                tf.TensorSpec(None, tf.bool, "c"),
                tf.TensorSpec((2, None), tf.bfloat16, "d"),
            ]
        )
        def serve(self, a, b, c, d):
            return {"a": a * tf.cast(b, tf.float32), "b": b + 1, "c": tf.logical_not(c), "d": d * 2}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "text")])
        def text(self, text):
            return {"length": tf.strings.length(text)}

    class Compiled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.int32, "x")], jit_compile=True)
        def compiled(self, x):
            return {"y": x + 1}

    plain = Plain()
    tf.saved_model.save(plain, str(folder / "plain"), {"serving_default": plain.serve, "text": plain.text})
    compiled = Compiled()
    tf.saved_model.save(compiled, str(folder / "xla"), {"serving_default": compiled.compiled})
    message = saved_model_pb2.SavedModel.FromString((folder / "plain" / "saved_model.pb").read_bytes())
    meta = message.meta_graphs[0]
    (folder / "plain" / "meta_graph.pb").write_bytes(meta.SerializeToString())
    read = {
        key: {
            side: {
                name: [
                    info.name,
                    tf.dtypes.as_dtype(info.dtype).name,
                    None if info.tensor_shape.unknown_rank else [d.size for d in info.tensor_shape.dim],
                ]
                for name, info in getattr(signature, side).items()
            }
            for side in ("inputs", "outputs")
        }
        for key, signature in meta.signature_def.items()
        if not key.startswith("__")
    }
    (folder / "plain.json").write_text(json.dumps(read))
    variable_of_tensorflow_1(folder / "variable")


def variable_of_tensorflow_1(folder: Path) -> None:
    """A variable that is an output itself, and signatures that say another dtype than the graph gives."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 2))
        variable = v1.get_variable("v", initializer=[1.0, 2.0], use_resource=False)
        session.run(v1.global_variables_initializer())
        quantized = tf.quantization.quantize(x, -1.0, 1.0, tf.qint8).output
        names = {"serving_default": variable.name, "rows": tf.shape(x).name, "quantized": quantized.name, "none": "v:3"}
        signatures = {}
        for signature, name in names.items():
            taken, given = v1.saved_model.build_tensor_info(x), v1.saved_model.build_tensor_info(x)
            given.name = name
            signatures[signature] = v1.saved_model.build_signature_def({"x": taken}, {"y": given}, "predict")
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
