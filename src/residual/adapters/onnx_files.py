"""An adapted encoder as ONNX: in one file, or with its weights in a second one beside it."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.files import shareable, write_errors, written_beside
from residual.hashing import sha256
from residual.libraries import first_line, library, version_of
from residual.outputs import check_file
from residual.products import ONNX

_ONE_FILE = 1_500_000_000  # bytes; ONNX holds no more than 2 GB without a second file for the weights
_SIZE = (224, 224)  # of an encoder that takes any


def write_onnx(
    whole: nn.Module,
    encoder: Encoder,
    path: str | Path,
    logits: bool,
    class_names: Sequence[str],
    size: tuple[int, int] | None,
    overwrite: bool = False,
) -> None:
    """See `AdaptedEncoder.export_onnx`.

    Args:
        whole: from pixels, and whether logits are wanted, to these or to features.
        encoder: in it.
        path, logits, size, overwrite: see there.
        class_names: of the logits.

    Raises:
        ResidualError: see there.
    """
    library("onnx", "export_onnx", "onnx")
    library("onnxscript", "export_onnx", "onnx")
    if encoder.dtype in (torch.bfloat16, torch.float16):
        raise ResidualError(
            f"ONNX is written in float32, and {encoder.name} is in {str(encoder.dtype)[6:]}: say "
            "adapted.float().export_onnx(path)."
        )
    path = check_file(path, ONNX, overwrite)
    height, width = encoder.image_size or size or _SIZE
    pixels = torch.zeros(2, 3, height, width, dtype=encoder.dtype, device=encoder.device)
    try:
        program = torch.onnx.export(
            _Giving(whole, logits),
            (pixels,),
            dynamo=True,
            input_names=["pixels"],
            output_names=["logits" if logits else "features"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
            verbose=False,
        )
    except Exception as error:  # whatever the exporter says of a model that it can't follow
        raise ResidualError(
            f"{encoder.name} can't be written as ONNX ({type(error).__name__}: {first_line(error)})."
        ) from error
    if program is None:
        raise ResidualError(f"{encoder.name} can't be written as ONNX: torch gave no program.")
    _clear_notes(program.model)
    told = {"encoder": shareable(encoder.name), "class_names": json.dumps(class_names)}
    program.model.metadata_props.update(told)
    _save_program(program, path.resolve())


class _Giving(nn.Module):
    """Pixels to one kind of output: exported inputs are tensors only."""

    def __init__(self, whole: nn.Module, logits: bool):
        super().__init__()
        self.whole, self.logits = whole, logits
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.whole(pixels, self.logits)


def _clear_notes(model: Any) -> None:
    """The exporter notes at each node and value in which lines of which files of this machine it was made."""
    model.metadata_props.clear()
    graphs = [model.graph, *model.functions.values()]
    for graph in graphs:  # which grows
        noted = [graph, *graph.inputs, *graph.outputs, *getattr(graph, "initializers", {}).values()]
        for node in graph:
            noted += [node, *node.outputs]
            for attribute in node.attributes.values():
                held = attribute.value if isinstance(attribute.value, (list, tuple)) else [attribute.value]
                graphs += [each for each in held if isinstance(each, type(model.graph))]
        for each in noted:
            each.metadata_props.clear()
            each.doc_string = None


def _save_program(program: Any, path: Path) -> None:
    """Write it whole or not at all. A second file has a name of its own, by what is in it: it is there before
    the first one names it, and that of an earlier program goes after.
    """
    own, replaced = "", path.exists()
    weights = {name: value.const_value for name, value in program.model.graph.initializers.items()}
    if sum(value.nbytes for value in weights.values()) <= _ONE_FILE:
        with written_beside(path) as beside:
            program.save(beside, external_data=False)
    else:
        digest = sha256(
            json.dumps(
                [[version_of(name) for name in ("torch", "onnxscript", "onnx-ir")]]
                + [[name, sha256(value.tobytes())] for name, value in weights.items()]
            ).encode()
        )
        named = f"{path.name}.{digest[:16]}"
        own, room = f"{named}.data", path.with_name(f".{path.name}.partial")
        shutil.rmtree(room, ignore_errors=True)  # of a killed writer
        try:
            with write_errors(path):
                room.mkdir()
                program.save(room / named, external_data=True)
            for made, place in ((own, path.with_name(own)), (named, path)):
                with written_beside(place) as beside:
                    shutil.copyfile(room / made, beside)  # into the file that is locked
        finally:
            shutil.rmtree(room, ignore_errors=True)
    for pattern in (*(["data"] if replaced else []), f"{'[0-9a-f]' * 16}.data"):
        for other in path.parent.glob(f"{glob.escape(path.name)}.{pattern}"):
            if other.name != own:
                other.unlink(missing_ok=True)
