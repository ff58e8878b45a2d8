"""open_clip: its own `VisionTransformer` or a timm trunk, alone or inside `CLIP` and `CustomTextCLIP`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from residual.encoders.anatomy import Anatomy
from residual.encoders.families import deit, eva, timm
from residual.encoders.family import Family, Tower
from residual.encoders.pooling import EndPool, MeanPool, TokenPool
from residual.encoders.preprocess import OnWhite
from residual.encoders.sources import (
    Loaded,
    check_built,
    check_configs,
    hub_errors,
    known_ids,
    load_errors,
    read_config,
    require_safetensors,
    snapshot,
)
from residual.errors import ResidualError
from residual.files import local_path
from residual.libraries import library

# The second is what the hub's converter makes of LAION's files; open_clip prefers the first as well.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
FILES = ("*.json", "*.txt", "*.model")
# Others name files to be read, or code to be run.
_TOKENIZER_SETTINGS = {"clean", "strip_sep_token", "language", "context_length", "reduction_mask"}
_BLOCKS = Anatomy(
    blocks="transformer.resblocks",
    attention_output="attn.out_proj",
    heads="attn.num_heads",
    mlp="mlp",
    final_norm="ln_post",
    projection="proj",
    attention_scale="ls_1.gamma",
    mlp_scale="ls_2.gamma",
    block_kinds=("ResidualAttentionBlock",),
)
_TEXT = replace(_BLOCKS, final_norm="ln_final", projection="text_projection", prefix=0, class_token=False)


def _image_anatomy(module: Any, anatomy: Anatomy) -> Anatomy:
    """Of a whole model or of its vision tower, which is open_clip's own or timm's."""
    visual, path = (module.visual, "visual") if hasattr(module, "visual") else (module, "")
    if hasattr(visual, "trunk"):
        if "mlp" in dict(visual.head.named_children()):
            raise ResidualError(
                "TimmModel can't be split: an MLP stands between its trunk and the output. Can be split: "
                "timm_proj linear or none."
            )
        family = _trunk_family(visual.trunk)
        if family is None:
            return timm.ANATOMY.under(f"{path}.trunk".lstrip("."))
        trunk = family.image.anatomy_of(visual.trunk).under("trunk")
        return (replace(trunk, projection="head.proj") if hasattr(visual.head, "proj") else trunk).under(path)
    if getattr(visual, "attn_pool", None) is not None or getattr(visual, "pool_type", "tok") == "none":
        raise ResidualError(
            f"{type(visual).__name__} can't be split: its attentional pooler has a norm of its own behind it "
            "(CoCa). Can be split: class token or average pooling."
        )
    last = getattr(visual, "final_ln_after_pool", False)
    average = getattr(visual, "pool_type", "tok") == "avg"
    return replace(
        anatomy,
        pool=MeanPool(1, norm_first=not last) if average else TokenPool(0),
        projection=None if getattr(visual, "proj", None) is None else "proj",
    ).under(path)


def _trunk_family(trunk: Any) -> Family | None:
    families = (*deit.FAMILIES, *timm.FAMILIES, *eva.FAMILIES)
    return next((family for family in families if family.handles(trunk)), None)


def _text_anatomy(module: Any, anatomy: Anatomy) -> Anatomy:
    text, path = (module.text, "text") if hasattr(module, "text") else (module, "")
    kind = getattr(text, "pool_type", getattr(module, "text_pool_type", None))
    pools = {"first": TokenPool(0), "last": TokenPool(-1), "argmax": EndPool(_largest), "eos": EndPool(_end)}
    if kind not in pools or getattr(text, "cls_emb", None) is not None:
        raise ResidualError(
            f"{type(text).__name__} can't be split: it pools by {kind!r} or a token of its own."
        )
    has = getattr(text, "text_projection", None) is not None
    return replace(anatomy, pool=pools[kind], projection="text_projection" if has else None).under(path)


def _largest(module: Any, ids: Tensor) -> Tensor:
    return ids.argmax(-1)


def _end(module: Any, ids: Tensor) -> Tensor:
    end = module.text.eos_id if hasattr(module, "text") else module.text_eos_id
    return (ids == end).int().argmax(-1)


def _size(module: Any) -> tuple[int, int]:
    return getattr(module, "visual", module).image_size


def _activation(module: Any) -> str:
    visual = getattr(module, "visual", module)
    if hasattr(visual, "trunk"):
        family = _trunk_family(visual.trunk) or timm.FAMILIES[0]
        return family.settings(visual.trunk)
    return repr(visual.transformer.resblocks[0].mlp.gelu)


def _preprocess(module: Any) -> OnWhite:
    from open_clip.model import get_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return OnWhite(image_transform_v2(PreprocessCfg(**get_model_preprocess_cfg(module)), is_train=False))


_VISION = Family(
    name="open_clip vision",
    classes=("open_clip.VisionTransformer", "open_clip.TimmModel"),
    image=Tower(_BLOCKS, lambda module, pixels: _pooled(module(pixels)), adjust=_image_anatomy),
    image_size=_size,
    settings=_activation,
    preprocess=_preprocess,
)
_BOTH = replace(
    _VISION,
    name="open_clip",
    classes=("open_clip.CLIP", "open_clip.CustomTextCLIP"),
    image=Tower(
        _BLOCKS.under("visual"),
        lambda module, pixels: _pooled(module.encode_image(pixels)),
        weights=("visual.",),
        adjust=lambda module, anatomy: _image_anatomy(module, _BLOCKS),
    ),
    text=Tower(_TEXT, lambda module, ids: _pooled(module.encode_text(ids)), adjust=_text_anatomy),
    logit_scale=lambda module: module.logit_scale.item(),
    tokenize=lambda tokenizer, module: tokenizer,
)

FAMILIES = (_BOTH, _VISION)


def load(name: str, source: str) -> Loaded:
    """`ARCH/TAG` from the hub, `ARCH/FILE.safetensors`, a folder, or `hf-hub:REPO`.

    Raises:
        ResidualError: open_clip isn't installed, or there are no such weights as safetensors.
    """
    open_clip = library("open_clip", name, extra="open-clip")
    folder = local_path(source)
    if folder.is_dir() or source.startswith("hf-hub:"):
        if not folder.is_dir():
            folder = snapshot(name, source.removeprefix("hf-hub:"), FILES, WEIGHTS)
        require_safetensors(name, folder, *WEIGHTS)
        _check_folder(name, folder)
        model = f"local-dir:{folder}"
        check_built(name, folder, lambda: open_clip.create_model(model, load_weights=False, device="meta"))
        return _load(open_clip, name, model, {})
    architecture, _, weights = source.partition("/")
    if architecture not in open_clip.list_models():
        raise ResidualError(f"{name}: open_clip has no {architecture!r} and there is no such folder.")
    how: dict[str, Any] = {"pretrained": str(local_path(weights))}
    if not weights.endswith(".safetensors"):
        config = open_clip.get_pretrained_cfg(architecture, weights)
        repo = repository_of(name, architecture, weights)
        how = {
            "pretrained": str(require_safetensors(name, snapshot(name, repo, [], WEIGHTS), *WEIGHTS)),
            "force_quick_gelu": config.get("quick_gelu", False),
            "force_preprocess_cfg": _preprocessing(config),
        }
    elif not Path(how["pretrained"]).is_file():
        raise ResidualError(f"{name}: there is no file {how['pretrained']!r}.")
    elif usual := _usual_preprocessing(open_clip, architecture):
        how["force_preprocess_cfg"] = usual
    return _load(open_clip, name, architecture, how)


def repository_of(name: str, architecture: str, tag: str) -> str:
    """The repository of the hub with the weights of a tag, as open_clip lists it.

    Raises:
        ResidualError: there is no such architecture or tag, or its weights are elsewhere.
    """
    open_clip = library("open_clip", name, extra="open-clip")
    if architecture not in open_clip.list_models():
        raise ResidualError(f"{name}: open_clip has no {architecture!r} and there is no such folder.")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ResidualError(f"{name}: {architecture} has no weights {tag!r}. Known: {tags}.")
    if not config["hf_hub"]:
        raise ResidualError(f"{name}: these weights aren't on the hub as safetensors; nothing else is read.")
    return config["hf_hub"].rpartition("/")[0]


def _usual_preprocessing(open_clip: Any, architecture: str) -> dict[str, Any]:
    """What all published weights of an architecture were trained with, if they agree."""
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    known = [_preprocessing(open_clip.get_pretrained_cfg(architecture, tag)) for tag in tags]
    return known[0] if known and all(each == known[0] for each in known) else {}


def _preprocessing(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode")}


def _load(open_clip: Any, name: str, model: str, how: dict[str, Any]) -> Loaded:
    with load_errors(name, model):
        module = open_clip.create_model(model, **how)
    tokenize = _Tokenize(name, model, getattr(module, "text", module).vocab_size)
    with load_errors(name, model):
        return Loaded(module, _preprocess(module), tokenize)


@dataclass
class _Tokenize:
    """Texts to token ids of open_clip's `model`; its tokenizer is made when it is needed."""

    name: str
    model: str
    vocab_size: int

    def __call__(self, texts: list[str]) -> Tensor:
        return known_ids(self._tokenizer(texts), self.vocab_size)

    @property
    def decode(self) -> Callable[[list[int]], str]:
        """Back to a text."""
        return self._tokenizer.decode

    @cached_property
    def _tokenizer(self) -> Any:
        open_clip = library("open_clip", self.name, extra="open-clip")
        # A tokenizer may ask for code of its own to be run: never.
        folder = self.model.partition(":")[2]
        named = _config(Path(folder)) if folder else open_clip.get_model_config(self.model) or {}
        of_hub = named.get("text_cfg", {}).get("hf_tokenizer_name")
        safely = {"trust_remote_code": False} | ({"local_files_only": True} if folder else {})
        with hub_errors(self.name):
            return open_clip.get_tokenizer(self.model, **(safely if of_hub else {}))


def _config(folder: Path) -> dict[str, Any]:
    """What `open_clip_config.json` says of the model in a folder."""
    return read_config(folder, "open_clip_config.json")["model_cfg"]


def _check_folder(name: str, folder: Path) -> None:
    """Refuse a config that names other models: open_clip would fetch them from a hub, whatever is in them.

    Raises:
        ResidualError: it does, or isn't there.
    """
    with load_errors(name, folder):
        check_configs(name, folder, ["open_clip_config.json", "tokenizer_config.json"])
        config = _config(folder)
        text, vision = config["text_cfg"], config["vision_cfg"]
        if text.get("hf_model_name"):
            raise ResidualError(
                f"{name}: by its config its text tower is {text['hf_model_name']!r} of a hub, which isn't "
                "fetched.",
                "Name an architecture of open_clip's own, and the weights: open_clip:ARCH/FILE.safetensors.",
            )
        trunk = vision.get("timm_model_name")
        if trunk and not library("timm", name, extra="timm").is_model(trunk):
            raise ResidualError(f"{name}: its config names {trunk!r}, which is no model of timm's own.")
        if odd := set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_SETTINGS:
            raise ResidualError(
                f"{name}: its config gives its tokenizer {', '.join(sorted(odd))}; taken are "
                f"{', '.join(sorted(_TOKENIZER_SETTINGS))}. Take that line out."
            )


def _pooled(output: Any) -> Tensor:
    """The pooled output of a tower that may give its tokens too."""
    return output[0] if isinstance(output, tuple) else output
