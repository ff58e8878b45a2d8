"""Datasets of the `datasets` library: the paper's suite from the hub, any other repository, saved tables.

`catalogue` knows the suite from `hub.json`, `templates.json` and `classes/`; `fetch` gets the tables,
`columns` and `splits` make images, labels and splits of them.
"""

from residual.data.hub.catalogue import HubEntry, hub_descriptions, hub_entries
from residual.data.hub.dataset import HubDataset, load_hub, load_table

__all__ = ["HubDataset", "HubEntry", "hub_descriptions", "hub_entries", "load_hub", "load_table"]
