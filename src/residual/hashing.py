"""Digests of bytes, and a quick sum that tells whether tensors were changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

_ROW = 1024
_IN_CACHE = 2**18  # words that are mixed at a time on a CPU
_TOGETHER = 2**26  # bytes


def sha256(*parts: bytes | bytearray | memoryview) -> str:
    """Of parts one after another, in hex."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()


def bit_sums(tensors: Iterable[Tensor]) -> list[list[int]]:
    """Sums over the bits of each tensor: no number can change unseen, nor can two change places.

    It is made where the tensor is: 0.26 s for a ViT-L's weights on one core, where SHA-256 takes 6 s. (The
    version counter of a tensor misses what is done by `.data`, numpy or a fused optimizer.)
    """
    return bit_sums_begun(tensors)()


def bit_sums_begun(tensors: Iterable[Tensor]) -> Callable[[], list[list[int]]]:
    """The same of tensors as they are now, to be asked for later: on a GPU nobody waits for it meanwhile."""
    sums = [_sums(tensor.detach()) for tensor in tensors]
    if not sums:
        return list
    whole = torch.stack([each.to(sums[0].device) for each in sums])
    if not whole.is_cuda:
        return whole.tolist
    here, copied = whole.to("cpu", non_blocking=True), torch.cuda.Event()
    copied.record(torch.cuda.current_stream(whole.device))

    def arrived() -> list[list[int]]:
        copied.synchronize()
        return here.tolist()

    return arrived


def joined(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The bytes of tensors in larger pieces where they are on a GPU, on which a small one takes as long as
    a large one; others as they are.
    """
    held: list[Tensor] = []
    for tensor in tensors:
        if held and (held[0].device != tensor.device or sum(each.nbytes for each in held) > _TOGETHER):
            yield torch.cat(held)
            held = []
        if tensor.is_cuda:
            held.append(tensor.detach().contiguous().view(-1).view(torch.uint8))
        else:
            yield tensor
    if held:
        yield torch.cat(held)


def row_sums(rows: Tensor) -> Tensor:
    """64 bits that tell each row of a tensor `(n, …)` from others: int64 `(n,)`, the same on any device."""
    data = rows.detach().contiguous().flatten(1).view(torch.uint8)
    if left_over := -data.shape[1] % 8:
        data = torch.nn.functional.pad(data, (0, left_over))
    elif data.storage_offset() % 8:
        data = data.clone()
    words = data.view(torch.int64)
    at_once = len(words) if words.is_cuda else _IN_CACHE // max(1, words.shape[1])
    return torch.cat([_mixed(part) + 1 for part in words.split(max(1, at_once))])  # 0 says nothing


def _sums(value: Tensor) -> Tensor:
    """Of words of 64 bits in rows: along rows, along columns, and of what is left over.

    Kept apart, since in one number a change along a row could make up for that along its column.
    """
    data = value.contiguous().view(-1).view(torch.uint8)
    if data.storage_offset() % 8:  # a slice of something else, whose words lie across our own
        data = data.clone()
    words = data[: len(data) // 8 * 8].view(torch.int64)
    whole = len(words) // _ROW * _ROW
    rows = words[:whole].view(-1, _ROW)
    sums = (rows.sum(1), rows.sum(0)) if whole else (words[:0], words[:0])
    parts = *sums, words[whole:], data[8 * len(words) :].long()
    nothing = torch.zeros((), dtype=torch.int64, device=data.device)  # as the sum over nothing is, without it
    return torch.stack([_mixed(part) if len(part) else nothing for part in parts])


def _mixed(values: Tensor) -> Tensor:
    """One number modulo 2⁶⁴ a row. Upper bits go into lower ones, or two signs could make up for each other;
    weights are odd, so that no single change is lost.
    """
    mixed = values ^ (values >> 31 & 0x1FFFFFFFF)
    return (mixed * (2 * torch.arange(values.shape[-1], device=values.device) + 1)).sum(-1)
