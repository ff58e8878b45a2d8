"""An encoder with its adapter folded in, as one module: for use, for serving, for export.

The adapter is a matrix on the coordinates that the forward pass leaves (`folding`), and the encoder a copy
with hooks that stay. Where one token is pooled the last block works on that token alone, which is less than
the encoder does by itself. `sharing` saves, loads and shares it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from residual.adapters.adaptation import Adaptation
from residual.adapters.adapter import Adapter
from residual.adapters.card import TrainingRecord
from residual.adapters.config import making_sense
from residual.adapters.folding import OUTPUT, FoldedMap, features_of
from residual.adapters.onnx_files import write_onnx
from residual.adapters.sharing import AdaptedParts, load_parts, push_parts, save_parts
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.encoders.fingerprints import precision_hint
from residual.encoders.pixels import Pixels
from residual.errors import OtherPoolingError, ResidualError
from residual.text.classifier import ZeroShotClassifier
from residual.tracing.ablated import ChangedEncoder
from residual.tracing.capture import Capture, exclusively, place_hooks, without_autocast
from residual.tracing.linearization import Linearization
from residual.tracing.token_choice import resolve
from residual.tracing.trace import captured_pass, twin_of


class AdaptedEncoder(nn.Module, EncoderLike):
    """An encoder whose output is re-weighted, and the classifier of its features.

        features = adapter(contributions of the encoder's units)       (n, d), not normalised
        logits = exp(logit_scale) · features/‖features‖ Wᵀ             (n, c)

    Args:
        encoder: what the adapter was fitted on. Its model is copied, so that it can be trained, moved or
            dropped without this one.
        adapter: fitted; later changes of it don't reach this one. None leaves the encoder as it is: for one
            that was fine-tuned, or for its classifier alone.
        classifier: of the features, or None.
        record: what is known of how it was trained; it is saved with it.
        original: fingerprint that the encoder had before it was fine-tuned, if it was: then its weights are
            saved, to be put into a freshly loaded encoder of that name.
        share: share the parameters with `encoder` in place of copying them: then move and train neither.

    Attributes:
        module: the model, with hooks where the adapter needs them.
        matrix, offset: the folded adapter. They stay in float32 or better when the module is cast.

    Raises:
        ResidualError: the adapter or the classifier is of another encoder, centering, width or pooling.

    Example:
        >>> from residual import load_encoder
        >>> from residual.adapters import LinearMap
        >>> encoder = load_encoder("picto", device="cpu")
        >>> adapted = AdaptedEncoder(encoder, LinearMap(encoder.output_dim))
        >>> adapted(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 192])
    """

    matrix: Tensor
    offset: Tensor
    class_weights: Tensor

    def __init__(
        self,
        encoder: EncoderLike,
        adapter: Adapter | None = None,
        classifier: ZeroShotClassifier | None = None,
        record: TrainingRecord | None = None,
        original: str | None = None,
        *,
        share: bool = False,
    ):
        super().__init__()
        encoder = checked_encoder(encoder)
        _check(encoder, adapter, classifier)
        own = Linearization.of(encoder)
        folded = None if adapter is None else adapter.fold(own)
        if encoder.changes:  # no model gives that output
            folded = FoldedMap.of(own if adapter is None else adapter.adapted(own))
        self.module = twin_of(encoder.module) if share else copy.deepcopy(encoder.module)
        self.encoder = encoder.around(self.module)
        self._as_encoder: Encoder | None = None
        # In a tuple, so that it is no part of the module: never cast, it stays exactly what was fitted.
        self._adapter = (None if adapter is None else _frozen(adapter),)
        self.classifier, self.record, self.original = classifier, record, original
        self.changed = False  # whether weights were loaded that adapter and classifier may not be those of
        self._fields = () if folded is None else folded.fields
        self._capture: Capture | None = None
        wide: dict[str, Any] = {
            "device": encoder.device,
            "dtype": torch.promote_types(encoder.dtype, torch.float32),
        }
        if folded is not None:
            self.register_buffer("matrix", folded.matrix.to(**wide))
            self.register_buffer("offset", folded.offset.to(**wide))
            if folded.fields != (OUTPUT,):
                self.module = twin_of(self.encoder.module)  # the encoder's own runs without hooks
                parts = self.encoder.anatomy.locate(self.module)
                self._capture = Capture(parts, resolve("own", parts, encoder.name), folded.kinds)
                place_hooks(self._capture, parts, ExitStack())
        if classifier is not None:
            self.register_buffer("class_weights", classifier.weights.to(**wide))
        self.register_load_state_dict_post_hook(_loaded)
        self.eval()

    @property
    def adapter(self) -> Adapter | None:
        """What was folded in, on the CPU and frozen."""
        return self._adapter[0]

    @property
    def method(self) -> str:
        """The adapter's; without one "fine_tuning", or "none" for an encoder as it was."""
        return self._parts.method

    @property
    def name(self) -> str:
        """That of the encoder."""
        return self.encoder.name

    @property
    def preprocess(self) -> Callable[[Any], Tensor]:
        """From a PIL image to pixels `(3, h, w)`."""
        return self.encoder.preprocess

    @property
    def output_dim(self) -> int:
        """Width of the features, `d`."""
        return self.encoder.output_dim

    @property
    def logit_scale(self) -> float | None:
        """That of the encoder: the logarithm of the factor on cosine similarities."""
        return self.encoder.logit_scale

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the logits, in their order; empty without a classifier."""
        return () if self.classifier is None else self.classifier.class_names

    def forward(self, pixels: Pixels, logits: bool | None = None) -> Float[Tensor, "n _"]:
        """Logits `(n, c)` where there is a classifier, else features `(n, d)`; or which of them is asked for.

        Raises:
            ResidualError: images that aren't of the model's size, or logits without a classifier.
        """
        features = self.encode_image(pixels)
        if not self._gives_logits(logits) or self.classifier is None:
            return features
        with without_autocast(features.device):
            directions = normalize(features.to(self.class_weights.dtype), dim=1)
            return self.classifier.scale * (directions @ self.class_weights.T)

    def encode_image(self, pixels: Pixels) -> Float[Tensor, "n d"]:
        """The adapted features, not normalised, in float32 or better; without an adapter the model's output.

        Threads take turns where units are captured. Gradients flow unless the caller turns them off.

        Raises:
            ResidualError: images that aren't of the model's size.
        """
        following = torch.compiler.is_compiling()  # compiled or exported: sizes are symbols, and no locks
        given: Any = pixels
        ready = given if following else self.encoder.checked_pixels(given)
        tower = self.encoder.tower("image")
        if self._capture is None:
            output = tower.encode(self.module, ready)
            if self.adapter is None:
                return output
            features = output.to(self.matrix.dtype)
        else:
            parts = self._capture.parts
            with ExitStack() as stack:
                if not following:
                    stack.enter_context(exclusively(parts.blocks[0].block))
                coordinates, _ = captured_pass(self._capture, parts, tower, self.module, ready)
            features = features_of(coordinates, self._fields).to(self.matrix.dtype)
        with without_autocast(features.device):
            return torch.addmm(self.offset, features, self.matrix)

    def as_encoder(self) -> Encoder:
        """The `Encoder` whose units contribute what the adapter makes of them: what `decompose`, stores and
        further adapters take this for.

        Raises:
            ResidualError: other weights were loaded into this module.
        """
        parts = self._unchanged()
        if parts.adapter is None:
            return self.encoder
        if self._as_encoder is None:
            changes = (*self.encoder.changes, Adaptation(parts.adapter))
            self._as_encoder = ChangedEncoder(self.encoder, changes, f"{self.name} with {self.method}")
        return self._as_encoder

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "c d"]:
        """That of the encoder: adapters are of the image side."""
        return self.encoder.encode_text(texts)

    def pixels(self, images: Iterable[Any]) -> Float[Tensor, "n 3 h w"]:
        """`preprocess` over several images, stacked."""
        return self.encoder.pixels(images)

    def export_onnx(
        self,
        path: str | Path,
        *,
        logits: bool | None = None,
        size: tuple[int, int] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write as ONNX, for any number of images: "pixels" goes in, "logits" or "features" comes out.

        Class names are in the file's metadata, as JSON under "class_names". Weights over 1.5 GB go into a
        second file beside it, `PATH.DIGEST.data`; one of an earlier export goes.

        Args:
            path: of the file.
            logits: as in `forward`.
            size: height and width of the images, for an encoder that takes any (then by default 224 by 224).
            overwrite: whether the file of an earlier export may be replaced.

        Raises:
            ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
            ResidualError: onnx or onnxscript is missing (`pip install 'residual-vit[onnx]'`), the weights are
                in half precision, the place can't be written to, or the model can't be exported.
        """
        write_onnx(self, self.encoder, path, self._gives_logits(logits), self.class_names, size, overwrite)

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write `adapter.safetensors`, `adapter_config.json` and a model card, `README.md`, into a folder
        that is new or empty, or holds an earlier adapter that may be replaced (`overwrite`); what else is in
        it then stays.

        Raises:
            ExistingError, ForeignError: it holds an adapter already, or something else.
            ResidualError: the place can't be written to, or other weights were loaded into this module.
        """
        save_parts(self._unchanged(), folder, overwrite=overwrite)

    @classmethod
    def from_pretrained(
        cls,
        place: str | Path,
        encoder: Encoder | str | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
    ) -> AdaptedEncoder:
        """Read what `save_pretrained` wrote into a folder, or `push_to_hub` to the hub.

        Args:
            place: the folder, or the hub's "OWNER/NAME".
            encoder: it, or its name as `load_encoder` takes it. By default it is loaded by the name in the
                config if that is one that the library lists; no other is loaded because a file names it.
            device: of the encoder that is loaded.
            revision: of the hub's repository: a branch, a tag or a commit.

        Raises:
            AdapterEncoderError: the encoder has to be given.
            ResidualError: nothing is there, it can't be had, is damaged or of a newer format; or the encoder
                isn't the one that it is for.
        """
        parts, share = load_parts(place, encoder, device, revision)
        with making_sense(place):
            return cls(*(getattr(parts, field.name) for field in fields(parts)), share=share)

    def push_to_hub(
        self, repo_id: str, private: bool = False, token: str | None = None, overwrite: bool = False
    ) -> str:
        """Put what `save_pretrained` writes into a repository of the hub, made if there is none; its address.
        An adapter that is in it already is replaced on request only.

        Raises:
            ExistingError, ForeignError: it holds an adapter already, or something else.
            ResidualError: the hub can't be reached or refuses.
        """
        return push_parts(self._unchanged(), repo_id, private, token, overwrite)

    def extra_repr(self) -> str:
        """What shows in `repr` beside the model."""
        method = "none" if self.adapter is None else self.adapter.method
        return f"{self.name!r}, adapter={method}, classes={len(self.class_names)}"

    @property
    def _parts(self) -> AdaptedParts:
        return AdaptedParts(self.encoder, self.adapter, self.classifier, self.record, self.original)

    def _unchanged(self) -> AdaptedParts:
        """What it is made of, as long as that is what it does.

        Raises:
            ResidualError: other weights were loaded into this module.
        """
        if self.changed:
            raise ResidualError(
                "Weights were loaded into this AdaptedEncoder by load_state_dict, so its adapter may not be "
                "what it does: save one made of the adapter itself."
            )
        return self._parts

    def _gives_logits(self, logits: bool | None) -> bool:
        if logits and self.classifier is None:
            raise ResidualError(f"Logits need a classifier, and this {self.name} has none.")
        return self.classifier is not None if logits is None else logits

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdaptedEncoder:
        """As any module is moved and cast, but that the adapter stays in float32 or better."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and torch.finfo(new.dtype).bits < 32:
                self._buffers[name] = old.to(new.device, torch.promote_types(new.dtype, torch.float32))
        self._share()
        return self

    def _share(self) -> None:
        """Give the encoder's own modules the tensors of these, which may have been replaced."""
        parts = dict(self.module.named_modules())
        for place, own in self.encoder.module.named_modules():
            if (part := parts.get(place)) is not None:  # it may have been exchanged or wrapped
                for mine, theirs in ((own._buffers, part._buffers), (own._parameters, part._parameters)):
                    mine.update({name: theirs[name] for name in mine if name in theirs})


def _loaded(module: nn.Module, keys: Any) -> None:
    if isinstance(module, AdaptedEncoder):
        module.changed = True
        module._share()


def _frozen(adapter: Adapter) -> Adapter:
    """A copy with weights of its own; what is never changed is shared."""
    never = [*adapter.buffers(), *(getattr(adapter, name, None) for name in ("bases", "pca", "origin"))]
    copied = copy.deepcopy(adapter, {id(value): value for value in never if value is not None})
    return copied.cpu().requires_grad_(False)


def _check(encoder: Encoder, adapter: Adapter | None, classifier: ZeroShotClassifier | None) -> None:
    """Refuse parts that aren't of this encoder.

    Raises:
        ResidualError: they aren't.
    """
    if classifier is not None and classifier.dim != encoder.output_dim:
        raise ResidualError(
            f"The classifier takes features of width {classifier.dim}, {encoder.name} gives "
            f"{encoder.output_dim}."
        )
    if adapter is None:
        return
    if adapter.dim != encoder.output_dim:
        raise ResidualError(
            f"The adapter is of width {adapter.dim}, the output of {encoder.name} of {encoder.output_dim}."
        )
    if (origin := adapter.origin) is not None:
        if not origin.is_of(encoder):
            raise ResidualError(
                f"The adapter is of {origin}, not of {encoder.name} (weights {encoder.fingerprint[:8]}, "
                f"centering {encoder.centering!r}).",
                precision_hint(encoder.dtype, "AdaptedEncoder(…).half()"),
            )
        if not resolve(origin.pooling, encoder.parts, encoder.name).own:
            raise OtherPoolingError(
                f"The adapter's bases are of pooling {origin.pooling!r}, which isn't what {encoder.name} "
                "does itself ('own'): only that can be made one module with it."
            )
        if classifier is not None and classifier.fingerprint not in (None, encoder.fingerprint):
            raise ResidualError(
                f"The classifier is of an encoder with weights {classifier.fingerprint[:8]}, the adapter of "
                f"{encoder.name} (weights {encoder.fingerprint[:8]})."
            )
