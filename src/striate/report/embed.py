"""Pictures inside a page: encoded, and written as data addresses, so that the page needs no other file."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ENLARGED_TO = 96  # pixels: a smaller picture is shown in whole-number steps of its pixels


def embedded(pixels: NDArray[np.uint8]) -> str:
    """Return a picture uint8 (H, W, C) as a data address: JPEG, or PNG where it is so small that each pixel counts."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    times = ENLARGED_TO // max(image.size)
    stream = io.BytesIO()
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
        image.save(stream, "PNG")
        return data_address(stream.getvalue(), "png")
    image.save(stream, "JPEG", quality=85)
    return data_address(stream.getvalue(), "jpeg")


def data_address(content: bytes, form: str) -> str:
    """Return bytes as a data address of a picture; none gives an empty one."""
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}" if content else ""
