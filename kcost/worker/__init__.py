"""The child's side: one process for one backend, started as `python -m kcost.worker JOB`.

Each job is a function from a request to an answer, both plain data, in a module that is imported only
when the job is asked for.
"""

JOBS = {
    "measure": "kcost.worker.measure",
    "train": "kcost.worker.train",
    "evaluate": "kcost.worker.evaluate",
    "optimize": "kcost.worker.optimize",
    "robustness": "kcost.worker.robustness",
    "build": "kcost.worker.build",
    "convert": "kcost.worker.convert.job",
    "check-conversion": "kcost.worker.convert.check",
    "export": "kcost.worker.export",
    "export-checkpoint": "kcost.worker.export_checkpoint",
    "check-saved-model": "kcost.worker.check_saved_model",
    "devices": "kcost.worker.devices",
}
"""Job name -> module whose `run(request: dict) -> dict` does it."""
