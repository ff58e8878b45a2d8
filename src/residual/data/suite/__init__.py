"""The offline suite: ten small labelled datasets that need no download, stand-ins for those of the paper.

`suite.json` describes them, `assets/` holds what is drawn from (`LICENSES.md`), one module a kind draws them.
"""

from __future__ import annotations

from residual.data.dataset import ImageDataset
from residual.data.suite.assets import description
from residual.data.suite.counting import Counting
from residual.data.suite.emoji import Concepts, Groups
from residual.data.suite.flags import Flags
from residual.data.suite.generated import Family, GeneratedDataset
from residual.data.suite.house_numbers import HouseNumbers
from residual.data.suite.letters import Letters
from residual.data.suite.real_digits import RealDigits
from residual.data.suite.road_signs import RoadSigns
from residual.data.suite.textures import Textures

FAMILIES: dict[str, type[Family]] = {
    "house-numbers": HouseNumbers,
    "letters": Letters,
    "road-signs": RoadSigns,
    "emoji-groups": Groups,
    "emoji-concepts": Concepts,
    "flags": Flags,
    "textures": Textures,
    "counting": Counting,
}


def suite_names() -> tuple[str, ...]:
    """The ten names, in the order of `suite.json`."""
    return tuple(description())


def load_suite(name: str, split: str) -> ImageDataset:
    """One split of a dataset of the suite."""
    spec = description()[name]
    if name in FAMILIES:
        return GeneratedDataset(name, split, spec, FAMILIES[name]())
    return RealDigits(name, split, spec)
