"""Datasets of the `datasets` library: the paper's suite from the hub, any other repository, saved tables.

`hub.json`, `templates.json` and `classes/` describe the suite, `fetch` gets the tables, `columns`, `classes`
and `carve` make images, labels and splits of them.
"""

from residual.data.hub.catalogue import HubEntry, hub_entries
from residual.data.hub.dataset import HubDataset, load_hub, load_table

__all__ = ["HubDataset", "HubEntry", "hub_entries", "load_hub", "load_table"]
