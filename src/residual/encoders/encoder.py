"""A loaded vision (and text) encoder: the one object that the rest of the library takes."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from residual.encoders.anatomy import CENTERINGS, Anatomy, Parts, check_centering
from residual.encoders.changes import Change, EncoderLike
from residual.encoders.family import Family, Tower
from residual.encoders.fingerprints import Fingerprints
from residual.encoders.paths import follow
from residual.encoders.pixels import Pixels, ToPixels, checked
from residual.encoders.running import evaluating, modules_of, own_code, recorded, tensors_of, uncompiled
from residual.encoders.wrappers import adapters_in
from residual.errors import ResidualError

T = TypeVar("T")
Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]
TOWERS = ("image", "text")
_TEXTS_AT_ONCE = 256
_MADE_AT_ONCE = 8  # of image and text, traced and not, with hooks and without
_POOL_SETTINGS = ("index", "first", "norm_first")


class Encoder(EncoderLike):
    """A model, how its towers are called, and where its parts are. Made by `load_encoder` or `wrap_encoder`.

    Args:
        name: how messages and files call it.
        module: the model; it is put into evaluation mode, and runs in that also where it is set to training
            again, but where gradients are recorded. Its parameters are left as they are.
        family: what kind of model it is.
        preprocess: from a PIL image to pixels.
        tokenize: from texts to token ids `(n, t)`, or None where there is no tokenizer.
        centering: how the last LayerNorm's mean is shared out among units: "shared", evenly as in the paper;
            or "own", each unit loses its own mean. With an RMS norm, which has none, it is "none".

    Raises:
        ResidualError: the module lacks parts of the family's anatomy, or `centering` isn't known.

    Attributes:
        changes: of its units' contributions, in turn.
    """

    changes: tuple[Change, ...] = ()

    def __init__(
        self,
        name: str,
        module: nn.Module,
        family: Family,
        preprocess: Callable[[Image.Image], Tensor],
        tokenize: Callable[[list[str]], Tensor] | None = None,
        centering: str = "shared",
    ):
        self.name = name
        self.module = module.eval()
        self.family = family
        self.preprocess = preprocess
        self.compiling: Compiler | None = None
        self._forget_compiled()
        self._tokenize = tokenize
        self._fingerprints = Fingerprints()
        check_centering(centering)
        parts = self._locate()
        self.centering = parts.centering(centering)
        if parts.centred and centering != self.centering:
            raise ResidualError(
                f"{name} norms with a mean, so centering is {' or '.join(map(repr, CENTERINGS))}, got "
                f"{centering!r}."
            )

    @property
    def anatomy(self) -> Anatomy:
        """Where the parts of the image tower are, in the model as it is now."""
        return self.family.image.anatomy_of(self.module)

    @property
    def parts(self) -> Parts:
        """They themselves, looked up anew: a part may be exchanged, or get an adapter around it.

        Raises:
            ResidualError: the model lacks parts of the anatomy.
        """
        return self._locate()

    @uncompiled
    def _locate(self) -> Parts:
        return self.anatomy.locate(self.module)

    @property
    def text_parts(self) -> Parts:
        """The parts of the text tower.

        Raises:
            ResidualError: there is none, or it isn't of a kind that can be split.
        """
        tower = self.tower("text")
        if self.family.no_text_parts:
            raise ResidualError(
                f"The text tower of {self.name} ({self.family.name}) can't be split: "
                f"{self.family.no_text_parts}."
            )
        return tower.anatomy_of(self.module).locate(self.module)

    def image_parameters(self) -> dict[str, nn.Parameter]:
        """The weights of the image tower, by name."""
        return {name: each for name, each in self.module.named_parameters() if self.in_image_tower(name)}

    def in_image_tower(self, name: str) -> bool:
        """Whether a parameter or buffer of the model, by its name, is the image tower's."""
        return name.startswith(self.family.image.weights or ("",))

    def tower(self, which: str) -> Tower:
        """The "image" or the "text" tower.

        Raises:
            ResidualError: there is no such tower.
        """
        if which not in TOWERS:
            raise ResidualError(f"Unknown tower {which!r}. Known: {', '.join(TOWERS)}.")
        tower = self.family.image if which == "image" else self.family.text
        if tower is None:
            raise ResidualError(f"{self.name} ({self.family.name}) has no text tower.")
        return tower

    def parts_of(self, which: str) -> Parts:
        """The parts of the "image" or the "text" tower.

        Raises:
            ResidualError: as `text_parts`.
        """
        self._check_present()
        return self.text_parts if which == "text" else self.parts

    def _check_present(self) -> None:
        if any(each.is_meta for each in tensors_of(modules_of(self.module))):
            raise ResidualError(
                f"{self.name} has weights that aren't there (on torch's device 'meta').",
                "Load all of them first: without offloading, or a device_map that offloads.",
            )

    @property
    def output_dim(self) -> int:
        """Width of the output, `d`."""
        return self.parts.output_dim

    @property
    def image_size(self) -> tuple[int, int] | None:
        """`(height, width)` that the model takes, or None if it takes any multiple of its patches."""
        return self.family.image_size(self.module)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are kept in."""
        return self._weight.dtype

    @property
    def _weight(self) -> Tensor:
        """Of the first block's output projection."""
        anatomy = self.anatomy
        output: Any = follow(follow(self.module, anatomy.blocks)[0], anatomy.attention_output)
        return output.weight

    @property
    def has_text(self) -> bool:
        """Whether `encode_text` can be called."""
        return self.family.text is not None and self._tokenize is not None

    @property
    def logit_scale(self) -> float | None:
        """Logarithm of the factor on cosine similarities; None where the model has none."""
        return None if self.family.logit_scale is None else self.family.logit_scale(self.module)

    @property
    def fingerprint(self) -> str:
        """sha256 over the vision side: its weights as they are now, and the settings that change its output.

        Weights are rounded to bfloat16 first, so that the same model in float32 and in bfloat16 is the same.
        """
        return self._image_digest("image")()

    @property
    def rounded_fingerprint(self) -> str:
        """The same of weights rounded to float16 first: that of the model in float32 and in float16.

        A model is known by this one or by `fingerprint`.
        """
        return self.rounded_fingerprint_begun()()

    def rounded_fingerprint_begun(self) -> Callable[[], str]:
        """Gives the same, of the weights as they are now, when it is called: a GPU goes on meanwhile."""
        return self._image_digest("rounded")

    def _image_digest(self, which: str) -> Callable[[], str]:
        self._check_present()
        parts = self.parts
        pool = [type(parts.pool).__name__, *(getattr(parts.pool, name, "") for name in _POOL_SETTINGS)]
        settings = f"{parts.heads} {parts.epsilon} {pool} {self.family.settings(self.module)}"
        settings += "".join(f" {change}" for change in self.changes)
        hidden = [  # that a state_dict leaves out; positions and the like, whole numbers, don't count
            (name, value) for name, value in self.module.named_buffers() if value.is_floating_point()
        ]
        return self._fingerprints.begun(self.module, which, settings, self.in_image_tower, hidden)

    @property
    def text_fingerprint(self) -> str:
        """The same over all other weights: those that make embeddings of token ids.

        Raises:
            ResidualError: there is no text tower.
        """
        self.tower("text")
        settings = self.family.settings(self.module)
        others = self.family.image.weights
        return self._fingerprints.begun(
            self.module, "text", f"{settings}", lambda name: not name.startswith(others)
        )()

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Encoder:
        """Move the model (in place) and give the encoder back."""
        self.module.to(device=device, dtype=dtype)
        self._forget_compiled()
        return self

    def compile(self, compiler: Compiler | None = None, **how: Any) -> Encoder:
        """From now on run compiled, traced or not; `how` goes to `torch.compile`. Gives itself back.

        Called again, it forgets what was compiled, as it does when a module inside the model is exchanged.
        `compiler` takes the place of `torch.compile`: a function from a function to the compiled one.
        """
        self.compiling = compiler or partial(torch.compile, **how)
        self._forget_compiled()
        return self

    def _forget_compiled(self) -> None:
        self.compiled: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._compiled_of: list[Tensor] = []

    def encode_image(self, pixels: Pixels) -> Float[Tensor, "n d"]:
        """The model's own image output, not normalised. Gradients flow unless the caller turns them off.

        Where gradients are recorded, the model runs in the mode that it is set to, as whoever trains it
        wants; else (under `torch.no_grad()`, or with frozen weights) in evaluation mode.

        Raises:
            ResidualError: the images aren't of the model's size.

        Example:
            >>> import residual
            >>> encoder = residual.load_encoder("picto", device="cpu")
            >>> encoder.encode_image(torch.zeros(2, 3, 64, 64)).shape
            torch.Size([2, 192])
        """
        ready = self.checked_pixels(pixels)
        with nullcontext() if recorded(self.module, ready) else evaluating(self.module):
            return self.run("image", ready)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "c d"]:
        """The model's own text output, not normalised. Gradients and mode are as in `encode_image`.

        Raises:
            ResidualError: there is no text tower or no tokenizer, or no text.

        Example:
            >>> import residual
            >>> encoder = residual.load_encoder("picto", device="cpu")
            >>> encoder.encode_text(["a photo of a cat", "the digit 7"]).shape
            torch.Size([2, 192])
        """
        ids = self.tokenize(texts)
        with nullcontext() if recorded(self.module) else evaluating(self.module):
            return torch.cat([self.run("text", part) for part in ids.split(_TEXTS_AT_ONCE)])

    def around(self, module: nn.Module) -> Encoder:
        """The same encoder with another module of the same kind: a copy, or one with other weights."""
        return Encoder(self.name, module, self.family, self.preprocess, self._tokenize, self.centering)

    def run(self, tower: str, inputs: Tensor) -> Tensor:
        """A tower on inputs that are ready for it, in the mode that the model is set to: as it is trained."""
        encode = self.tower(tower).encode
        if (compiler := self.compiling) is None:
            return encode(self.module, inputs)
        made = self.made_once((tower,), lambda: compiler(own_code(lambda ready: encode(self.module, ready))))
        return made(inputs)

    def made_once(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """What was made by `make`, of this model as it is: its modules, tensors, hooks and adapters.

        What is compiled doesn't look whether these come or go. The latest few are kept, to be found again.
        """
        modules = modules_of(self.module)
        tensors = tensors_of(modules)
        held = self._compiled_of
        if len(held) != len(tensors) or not all(map(operator.is_, held, tensors)):
            self.compiled, self._compiled_of = OrderedDict(), tensors
        hooks = [each for part in modules for each in (*part._forward_hooks, *part._forward_pre_hooks)]
        state = (*key, *map(id, modules), *hooks, *adapters_in(self.module).items())
        made = self.compiled
        if state in made:
            made.move_to_end(state)
            return made[state][1]
        made[state] = modules, (result := make())  # held, so that no other gets the id of one
        while len(made) > _MADE_AT_ONCE:
            made.popitem(last=False)
        return result

    def checked_pixels(self, pixels: Any) -> Float[Tensor, "n 3 h w"]:
        """Pixels, a tensor or a NumPy array, where and in what precision the model wants them.

        Raises:
            ResidualError: they aren't images, bytes and not pixels, or not of the model's size.
        """
        if self.device.type == "meta":
            self._check_present()
        return checked(pixels, self.name, self.image_size).to(self.device, self.dtype)

    def checked_ids(self, ids: Tensor) -> Tensor:
        """Token ids where the model wants them.

        Raises:
            ResidualError: they aren't whole numbers `(n, t)`.
        """
        if ids.ndim != 2 or not len(ids) or ids.is_floating_point():
            raise ResidualError(
                f"Token ids are whole numbers (n, t) from encoder.tokenize, got {tuple(ids.shape)} of "
                f"{str(ids.dtype).removeprefix('torch.')}."
            )
        return ids.to(self.device)

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "c t"]:
        """Token ids, padded to the context length and cut there.

        Raises:
            ResidualError: there is no text tower or no tokenizer, or no list of texts.
        """
        if isinstance(texts, str):
            raise ResidualError(f"Texts are given as a list, got one string: {texts!r}.")
        if not texts:
            raise ResidualError("At least one text is needed, got none.")
        self.tower("text")
        if self._tokenize is None:
            raise ResidualError(f"{self.name} has no tokenizer: its folder holds none, or none was given.")
        return self._tokenize(list(texts)).to(self.device)

    @property
    def to_pixels(self) -> ToPixels:
        """`preprocess` that takes arrays, too: from one picture of any kind to pixels `(3, h, w)`."""
        return ToPixels(self.name, self.preprocess, self.image_size)

    def pixels(self, images: Iterable[Any]) -> Float[Tensor, "n 3 h w"]:
        """`preprocess` over several images, stacked.

        Args:
            images: PIL images; bytes (uint8) of NumPy or torch, each `(h, w)`, `(h, w, 3)` or `(3, h, w)`;
                or pixels `(3, h, w)`, which are only stacked.

        Raises:
            ResidualError: there is none, or one is no picture.

        Example:
            >>> import numpy as np, residual
            >>> encoder = residual.load_encoder("picto", device="cpu")
            >>> encoder.pixels(np.zeros((2, 20, 30, 3), np.uint8)).shape
            torch.Size([2, 3, 64, 64])
        """
        made = list(map(self.to_pixels, images))
        if not made:
            raise ResidualError("At least one picture is needed, got none.")
        return torch.stack(made)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take with them: all but what was compiled, which runs only where it was."""
        return vars(self) | {"compiling": None, "compiled": OrderedDict(), "_compiled_of": []}

    def __repr__(self) -> str:
        parts = self.parts
        return (
            f"Encoder({self.name!r}, {self.family.name}, {len(parts.blocks)} layers of {parts.heads} heads, "
            f"{parts.width} -> {self.output_dim})"
        )
