"""The offline suite: ten small labelled datasets that need no download, stand-ins for those of the paper.

`suite.json` describes them, `assets/` holds what is drawn from (`LICENSES.md`); `characters`, `icons` and
`textures` draw them, `datasets` puts them together.
"""

from residual.data.suite.datasets import (
    MixedDataset,
    RandomDataset,
    load_suite,
    suite_descriptions,
    suite_names,
)

__all__ = ["MixedDataset", "RandomDataset", "load_suite", "suite_descriptions", "suite_names"]
