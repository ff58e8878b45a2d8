"""The datasets that ship or are made as they are read: the suite of ten, `mixed` and `random`."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from residual.data.dataset import DatasetDescription, ImageDataset
from residual.data.splits import SPLITS, stratified_split
from residual.data.suite import characters, icons, textures
from residual.data.suite.assets import description, real_digits
from residual.data.suite.draw import SIDE, random_for
from residual.data.suite.generated import Family, GeneratedDataset
from residual.errors import ResidualError

FAMILIES = {
    "house-numbers": Family(characters.house_number, characters.sources_of_house_numbers, shows_things=True),
    "letters": Family(characters.letter, characters.sources_of_letters),
    "road-signs": Family(icons.road_sign, shows_things=True),
    "emoji-groups": Family(icons.emoji_of_a_group, icons.sources_of_emoji_groups),
    "emoji-concepts": Family(icons.emoji_of_a_concept),
    "flags": Family(icons.flag),
    "textures": Family(textures.texture, textures.sources_of_textures),
    "counting": Family(icons.counted_things, shows_things=True),
}
PER_DATASET = 200
NOISE_SIDE = 224
NOISE_CLASSES = 10
NOISE_SIZES = {"train": 1000, "val": 200, "test": 200}


def suite_names() -> tuple[str, ...]:
    """The ten names, in the order of `suite.json`."""
    return tuple(description())


def load_suite(name: str, split: str) -> ImageDataset:
    """One split of a dataset of the suite."""
    spec = description()[name]
    if name in FAMILIES:
        return GeneratedDataset(name, split, spec, FAMILIES[name])
    return RealDigits(name, split, spec)


def suite_descriptions() -> list[DatasetDescription]:
    """What is known of `mixed`, of the ten, and of `random`, without loading any."""
    shipped = "ships with residual"
    ten = [
        DatasetDescription(name, it["about"], dict(it["sizes"]), len(it["classes"]), it["licence"], shipped)
        for name, it in description().items()
    ]
    mixed = DatasetDescription(
        "mixed",
        f"{PER_DATASET} pictures of each of the ten that ship; the class is the dataset",
        {split: sum(min(PER_DATASET, each.sizes[split]) for each in ten) for split in SPLITS},
        len(ten),
        MixedDataset.LICENCE,
        shipped,
    )
    noise = DatasetDescription(
        "random",
        f"uniform noise, {NOISE_SIDE} pixels; the labels mean nothing",
        dict(NOISE_SIZES),
        NOISE_CLASSES,
        RandomDataset.LICENCE,
        "made as it is read",
    )
    return [mixed, *ten, noise]


class RealDigits(ImageDataset):
    """`mnist` or `digits`: real handwritten digits, enlarged to 64 px, white on black as they are.

    `sample_ids` tell the sample's number in the whole set.
    """

    def __init__(self, name: str, split: str, spec: dict[str, Any]):
        images, labels = real_digits(name)
        chosen = stratified_split(labels)[SPLITS.index(split)]
        # MNIST comes sorted by class: mixed, so that the first few samples are of many classes.
        chosen = np.random.RandomState(42).permutation(chosen)
        self._images = images[chosen]
        self._white = int(images.max())
        super().__init__(
            name,
            split,
            [entry["name"] for entry in spec["classes"]],
            spec["templates"],
            labels[chosen],
            [f"{name}/{i:05d}" for i in chosen],
            spec["licence"],
        )

    def load(self, index: int) -> Image.Image:
        """Sample `index`, 64 px."""
        pixels = (self._images[index].astype(np.float32) * (255 / self._white)).round().astype(np.uint8)
        return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("RGB")


class RandomDataset(ImageDataset):
    """`random`: uniform noise, for what an encoder does to images that show nothing.

    Sample `i` has a seed of its own, so it is the same alone or in a row; its class is `i mod 10`.
    """

    LICENCE = "made by a generator; nobody's"

    def __init__(self, split: str):
        n = NOISE_SIZES[split]
        super().__init__(
            "random",
            split,
            [f"noise {index}" for index in range(NOISE_CLASSES)],
            ("a photo of a {}.", "an image of {}."),
            np.arange(n) % NOISE_CLASSES,
            [f"{split}/{index:05d}" for index in range(n)],
            self.LICENCE,
        )

    def load(self, index: int) -> Image.Image:
        """Sample `index`."""
        # Bytes of the generator, since its stream of those is frozen.
        pixels = random_for("random", self.split, index).bytes(NOISE_SIDE * NOISE_SIDE * 3)
        return Image.frombytes("RGB", (NOISE_SIDE, NOISE_SIDE), pixels)


class MixedDataset(ImageDataset):
    """`mixed`: `per_dataset` pictures of each dataset of the suite, the same every time, as a broad sample.

    Args:
        split: of all of them.
        per_dataset: pictures of each, or all where there are fewer. The label says which dataset.

    Raises:
        ResidualError: `per_dataset` is below 1.
    """

    LICENCE = "those of the ten"

    def __init__(self, split: str, per_dataset: int = PER_DATASET):
        if per_dataset < 1:
            raise ResidualError(f"per_dataset must be at least 1, got {per_dataset}.")
        self._parts = [load_suite(name, split).sample(per_dataset) for name in suite_names()]
        sizes = [len(part) for part in self._parts]
        self._starts = np.cumsum([0, *sizes])
        super().__init__(
            "mixed",
            split,
            suite_names(),
            ("a picture from {}.",),
            np.repeat(np.arange(len(sizes)), sizes),
            [f"{part.name}/{sample}" for part in self._parts for sample in part.sample_ids],
            self.LICENCE,
        )

    def load(self, index: int) -> Image.Image:
        """Sample `index`."""
        part = self.labels[index]
        return self._parts[part].load(index - int(self._starts[part]))

    def load_with_digest(self, index: int) -> tuple[Image.Image, int]:
        """Sample `index`, with the digest that it has in its own dataset."""
        part = self.labels[index]
        return self._parts[part].load_with_digest(index - int(self._starts[part]))
