"""Strong augmentation on the device: each step sees a picture on new ground, bent, tinted, blurred, noisy.

Pictures are RGBA; `kind` tells what may be done with each: 0 icon, 1 glyph, 2 scene. All functions work on a
whole batch with a random choice a picture, and have no branches, so that they compile into few kernels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

ICON, GLYPH, SCENE = 0, 1, 2


def chance(like: Tensor, p: float | Tensor) -> Tensor:
    """(n, 1, 1, 1) booleans."""
    return torch.rand(len(like), 1, 1, 1, device=like.device) < p


def uniform(like: Tensor, low: float, high: float, channels: int = 1) -> Tensor:
    return low + (high - low) * torch.rand(len(like), channels, 1, 1, device=like.device)


def warp_grid(kind: Tensor, size: int) -> Tensor:
    """(n, size, size, 2) sampling places: scale, turn, shear, shift, some perspective, an elastic bend."""
    n, device = len(kind), kind.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(n, *shape, device=device)

    glyph, scene = (kind == GLYPH).float(), (kind == SCENE).float()
    scale = 0.62 + 0.5 * torch.rand(n, device=device)
    scale = torch.where(kind == SCENE, 0.9 + 0.25 * torch.rand(n, device=device), scale)
    scale = torch.where((kind == GLYPH) & (torch.rand(n, device=device) < 0.25), scale * 0.75, scale)
    turn = normal() * (0.16 - 0.08 * scene)
    shear, stretch = normal() * (0.08 + 0.14 * glyph - 0.05 * scene), 1 + 0.1 * normal() * (1 - 0.6 * scene)
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    row0 = torch.stack([cos * stretch, (shear * cos - sin), normal() * 0.12 * (1 - 0.6 * scene)], -1)
    row1 = torch.stack([sin * stretch, (shear * sin + cos), normal() * 0.12 * (1 - 0.6 * scene)], -1)
    grid = F.affine_grid(torch.stack([row0, row1], 1), [n, 1, size, size], align_corners=False)
    tilt = normal(2)[:, None, None] * 0.06
    grid = grid / (1 + (grid * tilt).sum(-1, keepdim=True))
    bend = F.interpolate(normal(2, 5, 5), size=(size, size), mode="bicubic", align_corners=True)
    strength = (0.02 + 0.05 * glyph - 0.01 * scene) * torch.rand(n, device=device)
    return grid + (bend * strength[:, None, None, None]).permute(0, 2, 3, 1)


def thicken(alpha: Tensor, amount: Tensor) -> Tensor:
    """Strokes from thinner (-1) to much thicker (2), by mixing erosions and dilations."""
    wide = F.max_pool2d(alpha, 3, 1, 1)
    wider = F.max_pool2d(wide, 3, 1, 1)
    thin = -F.max_pool2d(-alpha, 3, 1, 1)
    out = torch.where(
        amount < 0, alpha + (thin - alpha) * -amount, alpha + (wide - alpha) * amount.clamp(0, 1)
    )
    return torch.where(amount > 1, wide + (wider - wide) * (amount - 1), out)


def grey(image: Tensor) -> Tensor:
    return (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def outlines(image: Tensor, alpha: Tensor) -> Tensor:
    """Where a pen would trace: the rim of the shape, and edges between its colours."""
    rim = F.max_pool2d(alpha, 3, 1, 1) + F.max_pool2d(-alpha, 3, 1, 1)
    light = grey(image)
    inner = F.max_pool2d(light, 3, 1, 1) + F.max_pool2d(-light, 3, 1, 1)
    return (rim + 2.2 * (inner - 0.12).clamp(0)).clamp(0, 1)


def retint(image: Tensor, alpha: Tensor) -> Tensor:
    """Saturation, a small turn of hue, gain; on colours multiplied with alpha."""
    angle = torch.randn(len(image), device=image.device) * 0.12
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    third = image.new_full((3, 3), 1 / 3)
    cross = image.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = cos * torch.eye(3, device=image.device) + (1 - cos) * third + sin * cross
    image = torch.einsum("nij,njhw->nihw", turn, image)
    saturation = uniform(image, 0.35, 1.5) * (~chance(image, 0.06)).float()
    image = grey(image) * (1 - saturation) + image * saturation
    gain, lift = uniform(image, 0.75, 1.25), uniform(image, -0.12, 0.12)
    return ((image * gain + lift * alpha).clamp(0)).minimum(alpha)


def grounds(like: Tensor, others: Tensor) -> Tensor:
    """(n, 3, h, w): one colour, two colours, clouds, a texture, or another picture out of focus."""
    n, _, h, w = like.shape
    first, second = uniform(like, 0, 1, 3), uniform(like, 0, 1, 3)
    white, black = chance(like, 0.3), chance(like, 0.14)
    plain = torch.where(white, 1.0, torch.where(black, 0.0, first))
    angle = uniform(like, 0, 2 * math.pi)
    y = torch.linspace(-1, 1, h, device=like.device)[:, None]
    x = torch.linspace(-1, 1, w, device=like.device)[None]
    slope = ((x * torch.cos(angle) + y * torch.sin(angle)) * 0.7 + 0.5).clamp(0, 1)
    cloud = F.interpolate(torch.rand(n, 1, 6, 6, device=like.device), size=(h, w), mode="bilinear")
    fine = F.interpolate(torch.rand(n, 1, 20, 20, device=like.device), size=(h, w), mode="bilinear")
    mix = torch.where(chance(like, 0.5), slope, 0.6 * cloud + 0.4 * fine)
    blend = first * mix + second * (1 - mix)
    roll = uniform(like, 0, 1)
    out = torch.where(roll < 0.58, plain.expand(n, 3, h, w), torch.where(roll < 0.8, blend, others))
    return out


def blur(image: Tensor, sigma: float) -> Tensor:
    reach = round(2.5 * sigma)
    line = torch.exp(-(torch.arange(-reach, reach + 1, device=image.device) ** 2) / (2 * sigma**2)).to(
        image.dtype
    )
    line = (line / line.sum()).repeat(3, 1)
    image = F.conv2d(F.pad(image, [reach, reach, 0, 0], mode="replicate"), line[:, None, None, :], groups=3)
    return F.conv2d(F.pad(image, [0, 0, reach, reach], mode="replicate"), line[:, None, :, None], groups=3)


def coarse(image: Tensor, side: int) -> Tensor:
    """What a camera of `side` pixels would have kept."""
    size = image.shape[-1]
    small = F.avg_pool2d(image, size // side)
    return F.interpolate(small, size=(size, size), mode="bilinear")


def augment(rgba: Tensor, kind: Tensor, ink: Tensor, others: Tensor) -> Tensor:
    """Pictures as the encoder meets them: `(n, 3, 64, 64)`, scaled to -1…1.

    - `rgba` (n, 4, 64, 64) in 0…1, straight alpha; `kind` (n,).
    - `ink` (n,) booleans: drawn in one colour, to be painted anew.
    - `others` (n, 3, 64, 64): pictures for grounds.
    """
    size = rgba.shape[-1]
    image, alpha = rgba[:, :3], rgba[:, 3:]
    is_glyph, is_icon = ((kind == which)[:, None, None, None] for which in (GLYPH, ICON))
    inked = ink[:, None, None, None]

    pen = uniform(image, -0.5, 2.0) if size >= 48 else uniform(image, -0.3, 1.0)
    pen = torch.where(is_glyph, pen, pen.clamp(-0.2, 0.8))
    alpha = torch.where(inked, thicken(alpha, pen), alpha)
    bright = chance(image, 0.45)
    board = is_glyph & bright  # white on black, as digits on a board
    paint = uniform(image, 0, 1, 3) * 0.75 * (~chance(image, 0.4)).float()
    image = torch.where(inked, paint.expand_as(image), image)

    image = image * alpha
    premultiplied = torch.cat([image, alpha], 1)
    warped = F.grid_sample(premultiplied, warp_grid(kind, size), mode="bilinear", align_corners=False)
    image, alpha = warped[:, :3], warped[:, 3:]

    lined = is_icon & ~inked & chance(image, 0.35)
    line = outlines(image, alpha) * lined.float() * uniform(image, 0.5, 1)
    image = image * (1 - line)
    alpha = torch.maximum(alpha, line)
    image = torch.where(inked | (kind == SCENE)[:, None, None, None], image, retint(image, alpha))
    faded = is_icon & ~inked & chance(image, 0.08)  # a drawing reduced to its lines
    image = torch.where(faded, alpha * (1 - outlines(image, alpha)), image)

    ground = grounds(image, others)
    # Ink and ground must differ: where they're close, the ink turns to the far end.
    close = inked & ((grey(ground).mean((2, 3), keepdim=True) - grey(paint)).abs() < 0.3)
    far = (grey(ground).mean((2, 3), keepdim=True) < 0.5).float()
    image = torch.where(close, alpha * (0.08 + 0.87 * far), image)
    image = torch.where(board, alpha * uniform(image, 0.75, 1), image)
    ground = torch.where(board, ground.new_zeros(()) + uniform(image, 0, 0.08), ground)
    image = image + ground * (1 - alpha)

    image = torch.where(chance(image, 0.06) & (kind != SCENE)[:, None, None, None], 1 - image, image)
    contrast, light = uniform(image, 0.6, 1.2), uniform(image, -0.15, 0.15)
    middle = image.mean((1, 2, 3), keepdim=True)
    image = torch.where(chance(image, 0.5), (image - middle) * contrast + middle + light, image)
    image = torch.where(chance(image, 0.08), grey(image).expand_as(image), image)

    roll = uniform(image, 0, 1)
    small = is_glyph | (kind == SCENE)[:, None, None, None]
    image = torch.where(roll < 0.14, blur(image, 0.8), torch.where(roll < 0.22, blur(image, 1.6), image))
    image = torch.where((roll > 0.8) & (roll < 0.9), coarse(image, 32), image)
    image = torch.where((roll >= 0.9) & (roll < 0.96), coarse(image, 16), image)
    image = torch.where((roll >= 0.96) & small, coarse(image, 8), image)
    noise = uniform(image, 0, 0.12) * chance(image, 0.4).float()
    image = image + noise * torch.randn_like(image)
    return image.clamp(0, 1) * 2 - 1
