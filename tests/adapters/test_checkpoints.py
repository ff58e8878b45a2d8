"""What goes into a checkpoint comes out as it was: types, numbers, shapes, shared memory; or is refused."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import nn

from residual.adapters.training.checkpoints import SafetensorsIO, load_nested, save_nested
from residual.errors import ResidualError

DTYPES = [
    getattr(torch, name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2"),
    )
]


def there_and_back(value):
    with TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.safetensors")
        save_nested(path, value)
        assert [each.name for each in Path(folder).iterdir()] == [path.name]
        return load_nested(path)


def bits(tensor: torch.Tensor) -> bytes:
    if tensor.dtype == torch.complex32:  # which little else in torch takes
        tensor = torch.view_as_real(tensor)
    flat = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor).flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def same(one, other) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        if (one.dtype, one.shape, one.stride()) != (other.dtype, other.shape, other.stride()):
            return False
        return bits(one) == bits(other)
    if isinstance(one, dict):
        keys = len(one) == len(other) and all(map(same, one, other))
        return keys and all(map(same, one.values(), other.values()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one.hex() == other.hex()
    return one == other


@st.composite
def tensors(draw):
    """Of every dtype, also without numbers or axes, transposed, or a part of something larger."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(0, 4), max_size=3))
    size = math.prod(shape)
    held = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    if dtype == torch.bool:
        held = bytes(byte & 1 for byte in held)
    made = torch.tensor(list(held), dtype=torch.uint8).view(dtype).view(shape)
    how = draw(st.sampled_from(["plain", "transposed", "part"]))
    if how == "transposed":
        return made.permute(tuple(reversed(range(made.ndim))))
    return made[1:] if how == "part" and shape and shape[0] else made


KEYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=5),
    st.floats(allow_nan=False),
    st.tuples(st.text()),
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), tensors())
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(st.text(max_size=5), inner, max_size=4).map(OrderedDict),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(NESTED)
def test_whatever_is_nested_comes_back(value):
    assert same(there_and_back(value), value)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_tensors_that_share_memory_still_do(data):
    base = torch.arange(40, dtype=torch.float32)
    views = {}
    for number in range(data.draw(st.integers(2, 5))):
        shape = data.draw(st.lists(st.integers(1, 3), max_size=2))
        stride = data.draw(st.lists(st.integers(0, 4), min_size=len(shape), max_size=len(shape)))
        views[number] = base.as_strided(shape, stride, data.draw(st.integers(0, 20)))
    views["as whole numbers"] = base[3:].view(torch.int32)
    back = there_and_back(views)
    assert same(back, views)
    assert len({view.untyped_storage().data_ptr() for view in back.values()}) == 1
    base[7:9] = -5
    back["as whole numbers"][4:6] = base[7:9].view(torch.int32)
    assert same(back, views)


def test_the_state_of_modules_and_optimisers():
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.8, 0.9))
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "parameter": model[0].bias}
    back = there_and_back(state)
    assert same(back["model"], state["model"])
    assert back["model"]._metadata == state["model"]._metadata
    assert same(back["optimizer"], state["optimizer"])
    assert type(back["parameter"]) is torch.Tensor  # and as a number once, since both are one memory
    assert back["parameter"].data_ptr() == back["model"]["0.bias"].data_ptr()
    assert not back["parameter"].requires_grad


def test_conjugated_and_negated_tensors():
    value = torch.tensor([1 + 2j, 3 - 1j])
    back = there_and_back([value.conj(), value.conj().imag])
    assert torch.equal(back[0], value.conj())
    assert torch.equal(back[1], value.conj().imag)


def test_the_file_is_a_plain_safetensors_file(tmp_path):
    save_nested(tmp_path / "a", {"model": {"weight": torch.ones(2)}, "steps": [torch.zeros(3)]})
    assert {name: tuple(value.shape) for name, value in load_file(tmp_path / "a").items()} == {
        "model/weight": (2,),
        "steps/0": (3,),
    }
    large = torch.zeros(1_000_000)
    save_nested(tmp_path / "b", {"few": large[10:20], "every": large[::1000][:3]})
    assert (tmp_path / "b").stat().st_size < 20_000  # not all of the memory that they are part of


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({1, 2}, "builtins.set"),
        (b"bytes", "builtins.bytes"),
        (1j, "builtins.complex"),
        (Odd(), "test_checkpoints.Odd"),
        (np.float64(1), "numpy.float64"),
        (np.zeros(2), "numpy.ndarray"),
        (torch.Size([1]), "torch.Size"),
        (torch.float32, "torch.dtype"),
        (lambda: 0, "builtins.function"),
        (torch.__version__, "torch.torch_version.TorchVersion"),
    ],
)
def test_other_types_are_refused_by_their_place(tmp_path, value, kind):
    with pytest.raises(ResidualError, match=rf"can't hold loops/3/x, a {kind}: only dicts, lists"):
        save_nested(tmp_path / "a", {"loops": [0, 0, 0, {"x": value}]})
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_other_kinds_are_refused(tmp_path):
    for tensor in (torch.eye(2).to_sparse(), torch.empty(2, device="meta")):
        with pytest.raises(
            ResidualError, match="can't hold the tensor a: it is sparse, quantised or without"
        ):
            save_nested(tmp_path / "a", {"a": tensor})
    loop: list = []
    loop.append(loop)
    with pytest.raises(ResidualError, match="can't hold what holds itself"):
        save_nested(tmp_path / "a", loop)


def write_tree(path, tree):
    held = {"a": torch.zeros(8, dtype=torch.uint8)}
    save_file(held, path, {"residual.checkpoint": f'{{"holds": {tree}}}'})


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(ResidualError, match=r"nothing can't be read \(No such file"):
        load_nested(tmp_path / "nothing")
    path = tmp_path / "a"
    save_nested(path, {"a": torch.arange(10.0)})
    whole = path.read_bytes()
    for cut in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ResidualError, match="a can't be read"):
            load_nested(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ResidualError, match="a holds no checkpoint but something else"):
        load_nested(path)
    for tree in ('{"tensor": "b"}', '{"of": 1}', "[", '{"dict": [[[], 1]]}', '{"dict": 3}'):
        write_tree(path, tree)
        with pytest.raises(ResidualError, match="a' is damaged"):
            load_nested(path)
    outside = '{"bytes": "a", "dtype": "float32", "shape": [2], "stride": [9999], "start": 0}'
    write_tree(path, outside)
    with pytest.raises(ResidualError, match="a' is damaged"):
        load_nested(path)
    with pytest.raises(ResidualError, match="can't be written"):
        save_nested(path / "in a file", {})


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(3, 1), []

    def training_step(self, batch, index):
        self.seen.append(index)
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def test_a_trainer_of_lightning_stops_and_goes_on_with_it(tmp_path, monkeypatch):
    for name in ("load", "save"):
        monkeypatch.setattr(torch, name, lambda *args, **kwargs: pytest.fail("pickle"))
    samples = torch.utils.data.TensorDataset(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))

    def fit(epochs, path=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's tips
            torch.manual_seed(0)
            line = Line()
            trainer = Trainer(
                max_epochs=epochs, plugins=[SafetensorsIO()], accelerator="cpu", logger=False,
                enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                default_root_dir=tmp_path,
            )  # fmt: skip
            trainer.fit(line, torch.utils.data.DataLoader(samples, batch_size=2), ckpt_path=path)
        return line, trainer

    whole, _ = fit(3)
    _, trainer = fit(1)
    trainer.save_checkpoint(tmp_path / "a.safetensors")
    resumed, _ = fit(3, tmp_path / "a.safetensors")
    assert len(resumed.seen) == 8
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    SafetensorsIO().remove_checkpoint(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []
