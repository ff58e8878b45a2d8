"""Read the packed corpus back: its records and its pictures as pixels."""

from __future__ import annotations

import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

BUILD = Path(__file__).parent / "build"


def read_pictures() -> list[tuple[dict, np.ndarray]]:
    """Each record with its pixels `(64, 64, 4)` uint8, straight alpha."""
    data = (BUILD / "corpus/pictures.bin").read_bytes()
    records = json.loads(gzip.decompress((BUILD / "corpus/pictures.json.gz").read_bytes()))

    def decode(record: dict) -> np.ndarray:
        return np.array(
            Image.open(io.BytesIO(data[record["at"] : record["at"] + record["bytes"]])).convert("RGBA")
        )

    with ThreadPoolExecutor() as pool:
        return list(zip(records, pool.map(decode, records), strict=True))
