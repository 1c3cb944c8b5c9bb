"""Real sentences as requests to a tagger: `python benchmarks/tagger_bodies.py ARTIFACT OUT [--data btc] [--count 512]`.

OUT gets a JSON body of `:predict` a line: word pieces of one sentence of the test part, as long as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from drift_figures import encoded_as_live

NAMES = ("token_ids", "segment_ids", "padding_mask")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="btc")
    parser.add_argument("--count", type=int, default=512)
    given = parser.parse_args()
    encoded = encoded_as_live(given.artifact, given.data, "test")
    lengths = np.asarray(encoded.padding_mask).sum(1)
    chosen = np.random.default_rng(0).permutation(len(lengths))[: given.count]
    with given.out.open("w", encoding="utf-8") as file:
        for place in chosen.tolist():
            row = {name: getattr(encoded, name)[place, : lengths[place]].tolist() for name in NAMES}
            file.write(json.dumps({"instances": [row]}) + "\n")
    taken = lengths[chosen]
    print(f"{len(chosen)} sentences of {taken.min()} to {taken.max()} pieces, median {np.median(taken):.0f}")


if __name__ == "__main__":
    main()
