"""Embeddings of texts, made once for an encoder and kept on disk by what they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from residual.data.dataset import LONGEST_TEXT
from residual.encoders.encoder import Encoder
from residual.encoders.running import evaluating
from residual.errors import LaterVersionError, ResidualError
from residual.files import cache_folder
from residual.finite import check_finite
from residual.progress import Progress
from residual.tensor_files import load_tensors, save_tensors
from residual.tracing.capture import without_autocast

_TEXTS = 256  # encoded at a time
_LONGEST = 2 * LONGEST_TEXT  # letters: a name in a template; tokenizers take long


def embed_texts(
    encoder: Encoder, texts: Sequence[str], progress: Progress | None = None, *, keep: bool = True
) -> Float[Tensor, "m d"]:
    """L2-normalised embeddings in float32 on the CPU.

    They are kept in the cache folder under a digest of the text tower's weights, its precision and the token
    ids, and read from there the next time. A kept file that is damaged is made anew.

    Args:
        encoder: one with a text tower.
        texts: one or more.
        progress: told of the texts that are done.
        keep: False leaves nothing on disk.

    Raises:
        ResidualError: no text, one that is too long, no text tower, or an embedding that isn't finite.
    """
    if long := [text for text in texts if len(text) > _LONGEST]:
        raise ResidualError(
            f"{long[0][:40]!r}… has {len(long[0]):,} letters; a text may have {_LONGEST:,}: no text tower "
            "reads more."
        )
    ids = encoder.tokenize(texts)
    what = f"{encoder.text_fingerprint} {encoder.dtype} {tuple(ids.shape)} {ids.dtype}"
    digest = hashlib.sha256(what.encode() + ids.cpu().contiguous().numpy().tobytes()).hexdigest()
    path = cache_folder() / "texts" / f"{digest}.safetensors"
    later = False
    if keep and path.is_file():
        try:
            kept = load_tensors(path, "texts", ("encoder",))[0]["embeddings"]
            if kept.shape == (len(texts), encoder.output_dim):
                return check_finite(kept, "Embeddings")
        except (ResidualError, KeyError) as error:
            later = isinstance(error, LaterVersionError)
    parts, done = [], 0
    for part in ids.split(_TEXTS):
        # What others will read depends on neither the model's mode nor an autocast around this call.
        with torch.no_grad(), evaluating(encoder.module), without_autocast(encoder.device):
            parts.append(normalize(encoder.run("text", part).float().cpu(), dim=1))
        done += len(part)
        if progress is not None:
            progress("embed texts", done, len(texts))
    embeddings = torch.cat(parts)
    if not embeddings.isfinite().all():
        wrong = int((~embeddings.isfinite().all(1)).nonzero()[0])
        raise ResidualError(f"{encoder.name} gives no finite embedding of {texts[wrong]!r}.")
    with suppress(ResidualError, OSError):  # a closed cache folder does no harm
        if keep and not later:  # whose file is that version's
            save_tensors(path, "texts", {"embeddings": embeddings}, {"encoder": encoder.name})
    return embeddings


def embed_prompts(
    encoder: Encoder,
    texts: Sequence[str],
    templates: Sequence[str],
    progress: Progress | None = None,
    *,
    keep: bool = True,
) -> Float[Tensor, "m d"]:
    """For each text the mean over templates of its prompts' normalised embeddings, itself not normalised
    (Radford et al. 2021, section 3.1.4).

    Raises:
        ResidualError: as `prompts_of` and `embed_texts`.
    """
    embedded = embed_texts(encoder, prompts_of(texts, templates), progress, keep=keep)
    return embedded.unflatten(0, (len(texts), len(templates))).mean(dim=1)


def prompts_of(texts: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Each text in every template, text by text.

    Raises:
        ResidualError: no template, or one without `{}`.
    """
    if isinstance(templates, str) or not templates:
        raise ResidualError(f"Templates are a list of one prompt or more, got {templates!r}.")
    if wrong := [template for template in templates if "{}" not in template]:
        raise ResidualError(f"Templates need {{}} where the text goes; it isn't in {wrong}.")
    return [template.replace("{}", text) for text in texts for template in templates]
