"""A SavedModel in LitServe, as its guide to batching has it: `python benchmarks/peer_litserve.py FOLDER PORT`.

In an environment of its own, with `litserve` and `tensorflow` (for its C library): see peers_serving.py.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve
from peer_rows import MOST_ROWS, WAIT_S, Model


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = Model(sys.argv[1])

    def decode_request(self, request):  # without types: LitServe would make a form of them
        return self.model.row(request["instances"][0])

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs  # rows of several lengths: they are put together in predict

    def predict(self, rows: list[Any]) -> list[Any]:
        return self.model.run(rows)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"predictions": [output.tolist()]}


if __name__ == "__main__":
    api = Api(max_batch_size=MOST_ROWS, batch_timeout=WAIT_S, api_path="/v1/models/m:predict")
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(port=int(sys.argv[2]), generate_client_file=False, log_level="error", access_log=False)
