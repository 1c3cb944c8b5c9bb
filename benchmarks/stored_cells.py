"""Opens, summarises and reports a simulated run of 10,302 cells: python benchmarks/stored_cells.py

The cells are drawn from a generator and hold what those of a real run do: ten rounds with as many steps as a turn of
0.15 s has room for, what was watched in each, and peak memory. Each has outputs of its own, which is the slowest case:
cells of a real run answer mostly alike. Writing them is not timed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import checkout  # noqa: F401 -- finds `testing`


def write(path: Path) -> None:
    from kcost.core.plan import Settings
    from testing.runs import plan, simulated_run, write_run

    models = ("simulated-cnn", "simulated-bert")
    run, outputs = simulated_run(plan(models=models, batches=tuple(range(1, 304)), settings=Settings()), steps=None)
    write_run(path, run, outputs)


def read(path: Path) -> None:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    import kcost

    verdict = kcost.make_report(path, html=path / "report.html")
    cells = sum(len(r.cells) for r in verdict.rankings)
    # Not getrusage: its peak is handed on from the process that started this one, which held the run it wrote.
    status = Path("/proc/self/status").read_text()
    mebibytes = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    print(f"{cells} cells: {wall_s:.1f} s, of that {cpu_s:.1f} s on the CPU; peak {mebibytes:.0f} MiB")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        read(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "run")
            # A process of its own: the peak of memory is that of reading alone.
            subprocess.run([sys.executable, __file__, str(Path(folder) / "run")], check=True)
