"""A SavedModel as a runtime of MLServer: see peers_serving.py, which writes its settings."""

from __future__ import annotations

import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

sys.path.insert(0, str(Path(__file__).parent))
from peer_rows import Model


class SavedModel(MLModel):
    async def load(self) -> bool:
        self.model = Model(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {given.name: NumpyCodec.decode_input(given) for given in payload.inputs}
        run = self.model.session.run({name: columns[name] for name in self.model.inputs})
        outputs = [NumpyCodec.encode_output(name, array) for name, array in run.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)


if __name__ == "__main__":
    # As `mlserver start SETTINGS` does, from which this file would not be found.
    import os

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    mlserver = Path(sys.executable).parent / "mlserver"
    os.execv(mlserver, [str(mlserver), "start", sys.argv[1]])
