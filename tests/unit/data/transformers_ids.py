"""What transformers makes of words, from a process of its own: it is slow to import, and brings torch where it is.

transformers_ids.py FOLDER    reads FOLDER/words.json, writes FOLDER/saved/NAME by save_pretrained and FOLDER/ids.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SAVED: dict[str, dict[str, Any]] = {
    "saved-uncased": {"do_lower_case": True},
    "saved-cased-without-accents": {"do_lower_case": False, "strip_accents": True},
    "saved-whole-ideographs": {"do_lower_case": False, "tokenize_chinese_chars": False},
}
"""Name of a folder that transformers writes -> settings of its BertTokenizer."""


def main(folder: Path) -> None:
    import transformers

    written = json.loads((folder / "words.json").read_text())
    for name, settings in SAVED.items():
        vocab = written["vocab" if settings["do_lower_case"] else "cased_vocab"]
        tokenizer = transformers.BertTokenizer(vocab=vocab, **settings)
        tokenizer.add_tokens(["@user", "<url>", "Émile"])
        tokenizer.add_special_tokens({"additional_special_tokens": ["<E>"]})
        tokenizer.save_pretrained(folder / "layouts" / name)
    ids = {}
    for layout in sorted((folder / "layouts").iterdir()):
        (layout / "config.json").write_text('{"model_type": "bert"}')
        tokenizer = transformers.AutoTokenizer.from_pretrained(layout)
        ids[layout.name] = tokenizer(written["sentences"], is_split_into_words=True)["input_ids"]
        ids[f"{layout.name}, texts"] = tokenizer([" ".join(words) for words in written["sentences"]])["input_ids"]
    (folder / "ids.json").write_text(json.dumps(ids))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
