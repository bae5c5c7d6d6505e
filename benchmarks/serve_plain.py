"""The server that one writes in ten minutes: FastAPI, Pillow, torch. `serve_load.py` measures against it.

python benchmarks/serve_plain.py RUN PORT
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image
from safetensors.torch import load_file

from striate.models import create_model


def load_net(run: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return the net of a run as a plain module, and what model.json says."""
    told = json.loads((Path(run) / "model.json").read_text(encoding="utf-8"))
    model = told["model"]
    net = create_model(
        model["name"], model["num_classes"], model["in_channels"], tuple(model["input_size"]), **model["options"]
    )
    net.load_state_dict(load_file(Path(run) / told["weights"]["file"]))
    return net.eval(), told


def to_tensor(content: bytes, told: dict[str, Any]) -> torch.Tensor:
    """Return a picture as the net takes it, float32 (C, H, W)."""
    preprocess = told["preprocess"]
    height, width = preprocess["size"]
    picture = Image.open(io.BytesIO(content)).convert("L" if preprocess["channels"] == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32)).reshape(height, width, -1).permute(2, 0, 1)
    mean, std = (torch.tensor(preprocess[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return (pixels - mean) / std


def to_probabilities(logits: torch.Tensor, told: dict[str, Any]) -> torch.Tensor:
    """Return probabilities (N, K)."""
    return torch.softmax(logits / told["temperature"], 1)


def main() -> None:
    net, told = load_net(sys.argv[1])
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        tensor = to_tensor(await request.body(), told)
        with torch.inference_mode():
            found = to_probabilities(net(tensor[None]), told)[0]
        return {"label": told["classes"][int(found.argmax())], "probabilities": found.tolist()}

    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
