"""How often drift is called where there is none, and how soon where there is.

    python benchmarks/drift_figures.py simulated                    # streams whose truth is known
    python benchmarks/drift_figures.py quiet --mnist ARTIFACT       # MNIST against MNIST, from inputs alone
    python benchmarks/drift_figures.py inputs --mnist ARTIFACT --btc ARTIFACT  # from inputs alone: needs no framework
    python benchmarks/drift_figures.py none --mnist ARTIFACT        # MNIST against MNIST, the model's answers included
    python benchmarks/drift_figures.py images --mnist ARTIFACT      # Fashion-MNIST and turned digits into MNIST
    python benchmarks/drift_figures.py text --btc ARTIFACT          # Chinese into an English tagger

Artifacts are what `kcost train cnn --data mnist --limit 6000 --epochs 2` and `kcost train bert --data btc --epochs 2`
make. Rows are read as the proxy reads them. Each window has 200 rows unless it is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from kcost.risk.drift_features import token_columns, vector_columns
from kcost.risk.drift_reference import BASIS_ROWS, Reading, Reference, features_of, vector_basis
from kcost.risk.drift_usd import bands_of
from kcost.risk.drift_watch import DriftWatch
from kcost.risk.figures import share
from kcost.serving.monitor.rows import read_rows

WINDOW = 200
FALSE_ALARMS = 0.01
Columns = dict[str, np.ndarray]


def made(columns: Columns, right: np.ndarray) -> Reference:
    """A reference of columns that all count as outputs."""
    return Reference(
        model="m",
        model_sha256="0",
        dataset="d",
        split="test",
        rows=len(right),
        unit="rows",
        label_names=("a", "b"),
        reading=Reading(kind="multiclass", logits=False, form="arrays"),
        features=features_of({"output": columns}),
        bands=bands_of(columns["confidence"], right),
    )


def first_alarm(watch: DriftWatch, windows: Iterator[Columns]) -> int | None:
    """The window at which any feature is called drifted, looking after each; None where none is."""
    for columns in windows:
        watch.add(columns)
        if any(f.since is not None for f in watch._features):
            return watch.windows
    return None


def print_alarms(name: str, alarms: int, streams: int) -> None:
    exact = share(name, alarms, streams, "streams")
    chance = binomtest(alarms, streams, FALSE_ALARMS, alternative="greater").pvalue
    print(
        f"{name}: {alarms} of {streams} streams alarmed ever (95%: {exact.low:.4f} to {exact.high:.4f}); as many "
        f"or more of streams that alarm in {FALSE_ALARMS:.0%}: {chance:.2g}",
        flush=True,
    )


def simulated(streams: int) -> None:
    """Five features of one unknown distribution a stream; reference of 2,000 rows, 1,000 windows of 50."""
    rng = np.random.default_rng(0)

    def rows(count: int, shape: float, mix: np.ndarray) -> Columns:
        confidence = rng.beta(8, shape, count)
        return {
            "confidence": confidence,
            "length": rng.poisson(12 * shape, count).astype(float),
            "class": rng.choice(["a", "b", "c", "d"], count, p=mix),
            "pixels": rng.normal(size=count) + confidence,
            "spread": rng.lognormal(0, shape, count),
        }

    alarms = 0
    for stream in range(streams):
        shape, mix = rng.uniform(0.5, 3), rng.dirichlet(np.ones(4))
        watch = DriftWatch(made(rows(2000, shape, mix), rng.random(2000) < 0.9), 50, FALSE_ALARMS)
        alarms += first_alarm(watch, (rows(50, shape, mix) for _ in range(1000))) is not None
        if stream in (9, streams // 2):
            print_alarms("so far", alarms, stream + 1)
    print_alarms("simulated, nothing drifts, 1,000 windows of 50 rows, 5 features", alarms, streams)


def answers_of(artifact: Path, inputs: Any, count: int, batch: int = 500) -> np.ndarray:
    import kcost

    forward = kcost.load(str(artifact), backend="torch", method="eager", batch=batch, threads=1)
    parts = []
    for start in range(0, count, batch):
        piece = (
            {n: a[start : start + batch] for n, a in inputs.items()}
            if isinstance(inputs, dict)
            else inputs[start : start + batch]
        )
        parts.append(np.asarray(forward(piece)))
    return np.concatenate(parts)


def image_columns(reference: Reference, artifact: Path, images: np.ndarray) -> Columns:
    answers = answers_of(artifact, images, len(images))
    rng = np.random.default_rng(1)
    return read_rows(reference, {"inputs": images}, {"outputs": answers}, rng).columns


def windows_of(columns: Columns, order: np.ndarray, rows: int) -> Iterator[Columns]:
    for start in range(0, len(order) // rows * rows, rows):
        yield {name: values[order[start : start + rows]] for name, values in columns.items()}


def scaled_images(artifact: Path, data: str, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    from kcost import data as data_sets
    from kcost.core.artifact import open_model
    from kcost.data.pixels import scaled

    about = open_model(artifact).artifact
    assert about is not None
    assert about.pixels is not None
    part = scaled(data_sets.load(data, limit=limit), about.pixels).splits[split]
    return part.x, part.y


def none(artifact: Path, splits: int) -> None:
    """Rows that the model was not trained on, split by chance: 8,000 are the reference, then 1,000 windows of 40."""
    import kcost

    reference = kcost.make_reference(artifact, data="mnist", limit=6000, backend="torch")
    x, labels = scaled_images(artifact, "mnist", "train")
    trained, _ = scaled_images(artifact, "mnist", "train", 6000)
    seen = {row.tobytes() for row in trained.reshape(len(trained), -1)}
    fresh = np.array([row.tobytes() not in seen for row in x.reshape(len(x), -1)])
    x, labels = x[fresh], labels[fresh]
    columns = image_columns(reference, artifact, x)
    right = columns["class"] == np.array(reference.label_names)[labels]
    rng = np.random.default_rng(2)
    alarms = 0
    windows = min(40_000, len(x) - 8000) // 40
    for split in range(splits):
        order = rng.permutation(len(x))
        mine, live = order[:8000], order[8000:48_000]
        watch = DriftWatch(made({n: v[mine] for n, v in columns.items()}, right[mine]), 40, FALSE_ALARMS, seed=split)
        alarms += first_alarm(watch, windows_of(columns, live, 40)) is not None
        if (split + 1) % 10 == 0 and split + 1 < splits:
            print_alarms("so far", alarms, split + 1)
    print_alarms(f"MNIST against MNIST, {windows:,} windows of 40 rows, {len(columns)} features", alarms, splits)


def seen_at(name: str, reference: Reference, columns: Columns, quiet: Columns, before: int) -> None:
    """Windows without drift, then with: at which of the latter it is found, how surely, and what it costs."""
    rng = np.random.default_rng(3)
    places = []
    drift = None
    rows, calm = (len(next(iter(c.values()))) for c in (columns, quiet))
    for seed in range(20):
        watch = DriftWatch(reference, WINDOW, FALSE_ALARMS, seed)
        for window in windows_of(quiet, rng.permutation(calm)[: before * WINDOW], WINDOW):
            watch.add(window)
        false = any(f.since is not None for f in watch._features)
        first_alarm = None
        for place, window in enumerate(windows_of(columns, rng.permutation(rows), WINDOW), 1):
            watch.add(window)
            drift = watch.report(1e6, 0.1)
            if drift.drifted:
                first_alarm = place
                break
        places.append("false" if false else "never" if first_alarm is None else str(first_alarm))
    assert drift is not None
    counts = ", ".join(f"window {p} in {places.count(p)}" for p in sorted(set(places)))
    first = ", ".join(f"{f.name} (PSI {f.psi:.2f})" for f in drift.drifted[:3]) or "none"
    surest = min(f.false_alarm_probability for f in drift.features)
    usd = ""
    if drift.cost is not None:
        figure = drift.cost.usd_per_month
        usd = f"; ${figure.value:,.0f} (95%: {figure.low:,.0f} to {figure.high:,.0f}) a million rows at $0.10 an error"
    print(
        f"{name}, after {before} windows without: {counts} of 20 streams; {len(drift.drifted)} of "
        f"{len(drift.features)} features: {first}; a false alarm at most {surest:.1g} of the time{usd}",
        flush=True,
    )


def images(artifact: Path) -> None:
    import kcost

    reference = kcost.make_reference(artifact, data="mnist", limit=6000, backend="torch")
    digits, labels = scaled_images(artifact, "mnist", "test", 6000)
    whole, _ = scaled_images(artifact, "mnist", "test")
    mine = {row.tobytes() for row in digits.reshape(len(digits), -1)}
    rest = np.array([row.tobytes() not in mine for row in whole.reshape(len(whole), -1)])
    quiet = image_columns(reference, artifact, whole[rest])
    fashion, _ = scaled_images(artifact, "fashion_mnist", "test", 6000)
    live = {
        "Fashion-MNIST into MNIST": (fashion, None),
        "digits turned by 90 degrees": (np.rot90(digits, 1, (1, 2)), labels),
    }
    live["digits turned by 180 degrees"] = (np.rot90(digits, 2, (1, 2)), labels)
    live["digits turned by 20 degrees"] = (turned(digits, 20.0), labels)
    for name, (x, y) in live.items():
        columns = image_columns(reference, artifact, np.ascontiguousarray(x))
        if y is not None:
            wrong = (columns["class"] != np.array(reference.label_names)[y]).mean()
            print(f"{name}: {wrong:.3f} of the answers are wrong")
        for before in (0, 20):
            seen_at(name, reference, columns, quiet, before)


def turned(x: np.ndarray, degrees: float) -> np.ndarray:
    from scipy.ndimage import rotate

    made_: np.ndarray = rotate(x, degrees, axes=(2, 1), reshape=False, order=1, mode="constant", cval=float(x.min()))
    return made_.astype(np.float32)


def text(artifact: Path) -> None:
    import kcost

    reference = kcost.make_reference(artifact, data="btc", backend="torch")

    def columns_of(name: str, split: str) -> Columns:
        encoded = encoded_as_live(artifact, name, split)
        inputs = {n: getattr(encoded, n) for n in ("token_ids", "segment_ids", "padding_mask")}
        answers = answers_of(artifact, inputs, len(encoded), batch=100)
        rng = np.random.default_rng(4)
        return read_rows(reference, {"inputs": inputs}, {"outputs": answers}, rng).columns

    quiet = columns_of("btc", "validation")
    for name, data in (
        ("Chinese into an English tagger", "uner-zh"),
        ("WNUT-17 into BTC", "wnut17"),
    ):
        seen_at(name, reference, columns_of(data, "test"), quiet, 0)


def inputs(mnist: Path, btc: Path, splits: int) -> None:
    """What inputs alone show: of images mean, deviation and distances, of texts length, unknown words and pieces."""
    train, _ = scaled_images(mnist, "mnist", "train", 6000)
    basis = vector_basis(train.reshape(len(train), -1)[:BASIS_ROWS])

    def of_images(x: np.ndarray) -> Columns:
        return vector_columns(x.reshape(len(x), -1), basis)

    digits, _ = scaled_images(mnist, "mnist", "test")
    fashion, _ = scaled_images(mnist, "fashion_mnist", "test", 6000)
    # By chance: the first and the second half of the file are of different writers, which the test finds.
    digits = np.random.default_rng(5).permutation(digits)
    quiet, mine = of_images(digits[5000:]), of_images(digits[:5000])
    live = {"Fashion-MNIST into MNIST": fashion, "digits turned by 20 degrees": turned(digits[5000:], 20.0)}
    live |= {f"digits turned by {90 * k} degrees": np.rot90(digits[5000:], k, (1, 2)) for k in (1, 2)}
    for name, x in live.items():
        for before in (0, 20):
            seen_at(f"{name}, inputs alone", of_inputs(mine), of_images(np.ascontiguousarray(x)), quiet, before)
    split_by_chance(of_images(digits), splits)

    def of_text(data: str, split: str) -> Columns:
        encoded = encoded_as_live(btc, data, split)
        return token_columns(encoded.token_ids, encoded.padding_mask, pieces_of(btc))

    tweets = of_text("btc", "test")
    order = np.random.default_rng(2).permutation(len(tweets["length"]))
    mine, quiet = ({n: v[part] for n, v in tweets.items()} for part in (order[:1000], order[1000:]))
    for name, data in (("Chinese into an English tagger", "uner-zh"), ("WNUT-17 into BTC", "wnut17")):
        for before in (0, 5):
            seen_at(f"{name}, inputs alone", of_inputs(mine), of_text(data, "test"), quiet, before)
    seen_at(
        "BTC's validation part into its test part, inputs alone",
        of_inputs(mine),
        of_text("btc", "validation"),
        quiet,
        0,
    )


def split_by_chance(whole: Columns, streams: int) -> None:
    """Half of the rows are the reference, the others come in windows of 20: each stream splits them anew."""
    rng, alarms, count = np.random.default_rng(2), 0, len(next(iter(whole.values())))
    for stream in range(streams):
        order = rng.permutation(count)
        reference = of_inputs({n: v[order[: count // 2]] for n, v in whole.items()})
        watch = DriftWatch(reference, 20, FALSE_ALARMS, seed=stream)
        alarms += first_alarm(watch, windows_of(whole, order[count // 2 :], 20)) is not None
        if stream + 1 in (100, streams // 2):
            print_alarms("so far", alarms, stream + 1)
    windows = count // 2 // 20
    print_alarms(f"MNIST against MNIST, {windows} windows of 20 rows, {len(whole)} features of inputs", alarms, streams)


def quiet_inputs(mnist: Path, streams: int) -> None:
    """As the last part of `inputs`, of as many streams as are wanted."""
    train, _ = scaled_images(mnist, "mnist", "train", 6000)
    basis = vector_basis(train.reshape(len(train), -1)[:BASIS_ROWS])
    digits, _ = scaled_images(mnist, "mnist", "test")
    split_by_chance(vector_columns(digits.reshape(len(digits), -1), basis), streams)


def of_inputs(columns: Columns) -> Reference:
    """A reference without answers."""
    count = len(next(iter(columns.values())))
    return made({**columns, "confidence": np.ones(count)}, np.ones(count, bool)).model_copy(
        update={"features": features_of({"input": columns})}
    )


def encoded_as_live(artifact: Path, name: str, split: str) -> Any:
    from kcost import data as data_sets
    from kcost.api.reference import _max_length, _tokenizer
    from kcost.core.artifact import open_model
    from kcost.data.sets import Sentence

    opened = open_model(artifact)
    assert opened.artifact is not None
    # Live text has no tags.
    sentences = [Sentence(x.tokens, ("O",) * len(x.tokens)) for x in data_sets.load(name).splits[split]]
    return _tokenizer(opened).encode(sentences, opened.artifact.label_names, _max_length(opened))


def pieces_of(artifact: Path) -> Any:
    from kcost.api.reference import _pieces
    from kcost.core.artifact import open_model

    return _pieces(open_model(artifact))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulated", "quiet", "inputs", "none", "images", "text"))
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--btc", type=Path)
    parser.add_argument("--streams", type=int, default=300)
    given = parser.parse_args()
    if given.what == "simulated":
        simulated(given.streams)
    elif given.what == "quiet":
        quiet_inputs(given.mnist, given.streams)
    elif given.what == "inputs":
        inputs(given.mnist, given.btc, min(given.streams, 100))
    elif given.what == "none":
        none(given.mnist, given.streams)
    elif given.what == "images":
        images(given.mnist)
    else:
        text(given.btc)


if __name__ == "__main__":
    main()
