"""Writes SavedModels that cut texts as a tagger's export does: `python -m tests.ship.text_models LENGTH FOLDER...`.

Each FOLDER holds a tokenizer; the model is FOLDER/graph. It answers with the ids as well, which an export keeps to
itself.
"""

import sys
from pathlib import Path

import tensorflow as tf

from kcost.data.text_tables import text_tables
from kcost.data.tokenizer_files import read_tokenizer
from kcost.worker.convert.tag_graph import entities
from kcost.worker.convert.text_graph import by_row, encode_texts
from tests.ship.artifacts import TAG_WORDS, TAGS


def main(folder: Path, out: Path, max_length: int) -> None:
    tables = text_tables(read_tokenizer(folder))

    class Cut(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "text")])
        def serve(self, text):
            encoded = encode_texts(text, tables, max_length)
            words, count = encoded.words, tf.size(text)
            return {
                "token_ids": encoded.token_ids,
                "padding_mask": encoded.padding_mask,
                "words": by_row(words.text, words, count),
                "spans": by_row(tf.stack([words.start, words.end], 1), words, count),
                "positions": by_row(encoded.position, words, count),
            }

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "text")])
        def entities(self, text):
            words = encode_texts(text, tables, max_length).words
            tag = tf.argmax(words.text[:, None] == list(TAG_WORDS), axis=-1, output_type=tf.int32)
            scores = 1 / (1 + tf.cast(words.end, tf.float32))
            return entities(tag, scores, words, tf.size(text), TAGS)

    cut = Cut()
    tf.saved_model.save(cut, str(out), {"serving_default": cut.serve, "entities": cut.entities})


if __name__ == "__main__":
    for folder in map(Path, sys.argv[2:]):
        main(folder, folder / "graph", int(sys.argv[1]))
