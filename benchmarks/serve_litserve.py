"""The same net behind LitServe, with its batching; `serve_load.py` measures against it.

python benchmarks/serve_litserve.py RUN PORT
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve
import torch
from serve_plain import load_net, to_probabilities, to_tensor


class Api(litserve.LitAPI):
    """Pictures come as base64 in JSON, LitServe's own way."""

    def setup(self, device: str) -> None:
        self.net, self.told = load_net(sys.argv[1])

    def decode_request(self, request: dict[str, str]) -> torch.Tensor:
        return to_tensor(base64.b64decode(request["image"]), self.told)

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return to_probabilities(self.net(inputs), self.told)

    def unbatch(self, output: torch.Tensor) -> list[list[float]]:
        return output.tolist()

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        return {"label": self.told["classes"][output.index(max(output))], "probabilities": output}


if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=0.002)
    litserve.LitServer(api, accelerator="cpu").run(port=int(sys.argv[2]), generate_client_file=False, log_level="error")
