"""Train Picto: a CLIP of 6.6 million weights, from scratch, on the packed corpus and procedural scenes.

The loss is CLIP's, where every caption that fits a picture (same name, same group) counts as its match. A run
is fixed by its seed: each step draws from a generator seeded by its own number, so a run that was cut off
goes on from its last checkpoint exactly as if it had not been.

    uv run --group picto python picto/train.py --steps 18000
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from augment import GLYPH, ICON, SCENE, augment
from captions import icon_caption, image_keys, scene_caption
from packed import BUILD, read_pictures
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scenes import MAKERS, make
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, PreTrainedTokenizerBase

FORMS = 6  # captions prepared for each picture
SHARES = {"emoji": 0.24, "flags": 0.05, "colour": 0.11, "line": 0.13, "hand": 0.09, "print": 0.06,
          "pen": 0.07, "row": 0.08, "texture": 0.04, "shape": 0.03, "count": 0.06, "sign": 0.04}  # fmt: skip


def clip_config(tokenizer: PreTrainedTokenizerBase) -> CLIPConfig:
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    both = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 6, "projection_dim": 192}
    vocabulary, context = len(tokenizer), tokenizer.model_max_length
    text = {"num_hidden_layers": 4, "vocab_size": vocabulary, "max_position_embeddings": context}
    vision = {"num_hidden_layers": 8, "image_size": 64, "patch_size": 8}
    return CLIPConfig(text_config=both | text | ids, vision_config=both | vision, projection_dim=192)


_pictures: list = []


def _scenes(task: tuple[str, int, int]) -> list:
    return [make(task[0], index, _pictures) for index in range(task[1], task[2])]


def prepare(left_out: list[str], folder: Path) -> dict[str, Tensor]:
    """Everything a step draws from, as tensors; kept on disk beside the checkpoint.

    `pixels` (n, 4, 64, 64) uint8, `kind` (n,), `ink` (n,), `keys` (n, 3), `captions` (n, FORMS, 32)
    token ids, `caption_keys` (n, FORMS), `weight` (n,).
    """
    if (folder / "prepared.safetensors").exists():
        return load_file(folder / "prepared.safetensors")
    global _pictures
    tokenizer = AutoTokenizer.from_pretrained(BUILD / "tokenizer")
    began = time.time()
    _pictures = [entry for entry in read_pictures() if entry[0]["set"] not in left_out]
    rng, ids = random.Random(7), {}
    kind, ink, pool, keys, texts, caption_keys, names = [], [], [], [], [], [], []
    total = len(_pictures) + sum(count for _, count in MAKERS.values())
    pixels = np.full((total, 4, 64, 64), 255, np.uint8)

    def key(text: str) -> int:
        return ids.setdefault(text, len(ids))

    for record, rgba in _pictures:
        pixels[len(kind)] = rgba.transpose(2, 0, 1)
        kind.append(GLYPH if record["kind"] == "glyph" else ICON)
        ink.append(record["ink"])
        pool.append(list(SHARES).index(record["style"]))
        keys.append([key(text) for text in image_keys(record)])
        said = [icon_caption(rng, record) for _ in range(FORMS)]
        texts += [text for text, _ in said]
        caption_keys.append([key(text) for _, text in said])
        names.append(record["name"].lower())
    tasks = [
        (which, at, min(at + 500, total))
        for which, (_, total) in MAKERS.items()
        for at in range(0, total, 500)
    ]
    # Workers are forked: they find the pictures where they are.
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as workers:
        for task, made in zip(tasks, workers.map(_scenes, tasks), strict=True):
            for rgb, form, name in made:
                pixels[len(kind), :3] = rgb.transpose(2, 0, 1)
                kind.append(SCENE)
                ink.append(False)
                pool.append(list(SHARES).index(task[0]))
                keys.append([key(name)] * 3)
                said = [scene_caption(rng, form, name) for _ in range(FORMS)]
                texts += [text for text, _ in said]
                caption_keys.append([key(text) for _, text in said])
                names.append(name)
    print(f"{len(pixels)} pictures, {len(ids)} keys in {time.time() - began:.0f} s", flush=True)
    distinct: dict[str, int] = {}
    place_of = [distinct.setdefault(text, len(distinct)) for text in texts]
    tokens, unique = [], list(distinct)
    for at in range(0, len(unique), 50_000):
        batch = tokenizer(
            unique[at : at + 50_000],
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="np",
        )
        tokens.append(batch["input_ids"].astype(np.int16))
    captions = np.concatenate(tokens)[place_of]
    # Inside a pool a name with many drawings is drawn less than its share: by the root of their number.
    counts: dict[tuple[int, str], int] = {}
    for place, name in zip(pool, names, strict=True):
        counts[place, name] = counts.get((place, name), 0) + 1
    weight = np.array([counts[place, name] ** -0.5 for place, name in zip(pool, names, strict=True)])
    pool_array = np.array(pool)
    for index, share in enumerate(SHARES.values()):
        weight[pool_array == index] *= share / weight[pool_array == index].sum()
    data = {
        "pixels": torch.from_numpy(pixels),
        "kind": torch.tensor(kind),
        "ink": torch.tensor(ink),
        "keys": torch.tensor(keys),
        "captions": torch.from_numpy(captions).view(len(pixels), FORMS, -1),
        "caption_keys": torch.tensor(caption_keys),
        "weight": torch.from_numpy(weight).float(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(data, folder / "prepared.safetensors")
    print(f"{len(distinct)} different captions; prepared in {time.time() - began:.0f} s", flush=True)
    return data


def loss_of(image: Tensor, text: Tensor, scale: Tensor, fits: Tensor) -> Tensor:
    """CLIP's loss with several right answers: cross-entropy against an even share for each that fits."""
    logits = scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    wanted = fits.float()
    rows = (wanted / wanted.sum(1, keepdim=True) * F.log_softmax(logits, 1)).sum(1)
    columns = (wanted / wanted.sum(0, keepdim=True) * F.log_softmax(logits, 0)).sum(0)
    return -(rows.mean() + columns.mean()) / 2


class Trainer:
    def __init__(self, args: argparse.Namespace):
        self.args, self.device, self.folder = args, torch.device(args.device), Path(args.out)
        self.data = {
            name: tensor.to(self.device) for name, tensor in prepare(args.leave_out, self.folder).items()
        }
        tokenizer = AutoTokenizer.from_pretrained(BUILD / "tokenizer")
        torch.manual_seed(args.seed)
        self.model = CLIPModel(clip_config(tokenizer)).to(self.device)
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=args.lr, betas=(0.9, 0.98), fused=self.device.type == "cuda"
        )
        compiled = torch.compile if self.device.type == "cuda" else (lambda fn: fn)
        self.augment, self.features = compiled(augment), compiled(self._features)
        self.table = self.data["weight"].double().cumsum(0)
        self.step = 0
        if (self.folder / "checkpoint.safetensors").exists():
            self.resume()

    def _features(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        model = self.model
        seen = model.visual_projection(model.vision_model(pixels).pooler_output)
        hidden = model.text_model(input_ids=tokens).pooler_output
        return seen, model.text_projection(hidden)

    def draw(self, n: int) -> Tensor:
        return torch.searchsorted(
            self.table, torch.rand(n, device=self.device, dtype=torch.float64) * self.table[-1]
        ).clamp_max(len(self.table) - 1)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        data, n = self.data, self.args.batch
        index, form = self.draw(n), torch.randint(FORMS, (n,), device=self.device)
        other = data["pixels"][torch.roll(index, 1)][:, :3].float() / 255
        pixels = self.augment(
            data["pixels"][index].float() / 255, data["kind"][index], data["ink"][index], other
        )
        keys = data["caption_keys"][index, form]
        fits = (data["keys"][index][:, None, :] == keys[None, :, None]).any(-1)
        fits = fits | torch.eye(n, dtype=torch.bool, device=self.device)
        return pixels, data["captions"][index, form].long(), fits

    def train(self) -> None:
        began, first, losses = time.time(), self.step, []
        warm = 500
        while self.step < self.args.steps:
            rate = (
                min(1.0, self.step / warm)
                * 0.5
                * (1 + math.cos(math.pi * max(0, self.step - warm) / max(1, self.args.steps - warm)))
            )
            for group in self.optimizer.param_groups:
                group["lr"] = self.args.lr * max(rate, 1e-3)
            torch.manual_seed(self.args.seed * 1_000_003 + self.step + 1)
            pixels, tokens, fits = self.batch()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                image, text = self.features(pixels, tokens)
            loss = loss_of(image.float(), text.float(), self.model.logit_scale, fits)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            with torch.no_grad():
                self.model.logit_scale.clamp_(0, math.log(100))
            losses.append(loss.detach())
            self.step += 1
            if self.step % self.args.every == 0 or self.step == self.args.steps:
                spent = time.time() - began
                pairs = (self.step - first) * self.args.batch / spent
                loss, scale = torch.stack(losses).mean().item(), self.model.logit_scale.exp().item()
                progress = f"step {self.step} loss {loss:.3f} scale {scale:.1f}"
                print(f"{progress} {pairs:.0f} pairs/s {spent:.0f} s", flush=True)
                losses = []
            if time.time() - began > self.args.seconds:
                break
        self.save()

    def save(self) -> None:
        """The checkpoint, written beside its place and renamed into it."""
        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for parameter, values in self.optimizer.state.items():
            state |= {
                f"optimizer.{names[parameter]}.{part}": value.reshape(-1) if part == "step" else value
                for part, value in values.items()
            }
        beside = self.folder / "checkpoint.beside"
        meta = {"step": str(self.step), "settings": json.dumps(vars(self.args))}
        save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, beside, metadata=meta)
        beside.replace(self.folder / "checkpoint.safetensors")

    def resume(self) -> None:
        with safe_open(self.folder / "checkpoint.safetensors", "pt") as file:
            self.step = int(file.metadata()["step"])
            state = {name: file.get_tensor(name).to(self.device) for name in file.keys()}  # noqa: SIM118
        self.model.load_state_dict(
            {name[6:]: tensor for name, tensor in state.items() if name.startswith("model.")}
        )
        for name, parameter in self.model.named_parameters():
            found = {
                part: state[f"optimizer.{name}.{part}"]
                for part in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{name}.{part}" in state
            }
            if found:
                found["step"] = found["step"].reshape(())
                self.optimizer.state[parameter] = found
        print(f"going on from step {self.step}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=18000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="stop and save after this long; start again to go on"
    )
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument(
        "--leave-out",
        nargs="*",
        default=[],
        help="icon sets to leave out, to measure a style that was not seen",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default=str(BUILD / "train"))
    torch.set_float32_matmul_precision("high")
    Trainer(parser.parse_args()).train()


if __name__ == "__main__":
    main()
