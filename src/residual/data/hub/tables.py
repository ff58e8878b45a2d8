"""The splits of a source, each fetched when its pictures are asked for: no file of another split is.

Parquet files tell columns by their ends, and labels without the pictures beside them: where a split is only
asked for these, so much of its files is read over the network, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

_SECRET = -1  # for a label, where nothing stands there


class Split:
    """One split of a source.

    Args:
        load: its table, a `datasets.Dataset`.
        files: Parquet files that the table is made of, as addresses that `opened` takes; none where it has to
            be loaded for whatever is asked.
        features: its columns, where they are known.
        told: wraps what reads files, so that it says what goes wrong there.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        files: Sequence[str] = (),
        features: Any = None,
        told: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda read: read,
    ):
        self._load, self._columns = told(load), features
        self._schema, self._column, self._hidden = map(told, (_schema, _column, _hidden))
        self.files = tuple(files)

    @cached_property
    def table(self) -> Any:
        """The table itself, fetched once."""
        return self._load()

    @property
    def by_files(self) -> bool:
        """Whether it is looked into file by file, since nothing needed the table yet."""
        return bool(self.files) and "table" not in self.__dict__

    @cached_property
    def features(self) -> Any:
        """Its columns."""
        if self._columns is None and self.by_files:
            return self._schema(self.files[0])
        return self.table.features if self._columns is None else self._columns

    def cells(self, column: str) -> Any:
        """A column as Arrow has it, without a look at the images beside it."""
        if self.by_files:
            return self._column(self.files, column)
        return self.table.select_columns([column]).with_format("arrow")[:][column]

    def is_labelled(self, column: str) -> bool:
        """Whether any row has a label: in those of a test that is kept secret all are -1 or nothing."""
        hidden = self._hidden(self.files, column) if self.by_files else None
        if hidden is None:
            return bool(set(self.cells(column).unique().to_pylist()) - {_SECRET, None})
        return not hidden


def _schema(file: str) -> Any:
    import datasets
    import pyarrow.parquet

    with opened(file) as content:
        return datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(content))


def _column(files: Sequence[str], column: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    parts = []
    for file in files:
        with opened(file) as content:
            parts += pyarrow.parquet.read_table(content, columns=[column])[column].chunks
    return pyarrow.chunked_array(parts)


def _hidden(files: Sequence[str], column: str) -> bool | None:
    """Whether a column says nothing, by what the files' ends tell of its values; None where they don't."""
    import pyarrow.parquet

    for file in files:
        with opened(file) as content:
            about = pyarrow.parquet.read_metadata(content)
        for number in range(about.num_row_groups):
            part = about.row_group(number).column(about.schema.names.index(column))
            said = part.statistics
            if said is None or not said.has_null_count:
                return None
            if said.null_count < part.num_values and not said.has_min_max:
                return None
            if said.has_min_max and not said.min == said.max == _SECRET:
                return False
    return True


@contextmanager
def opened(address: str) -> Generator[Any]:
    """A file on this machine or, as `hf://datasets/OWNER/NAME@COMMIT/FILE`, on the hub, of which only what is
    read is fetched.
    """
    if not address.startswith("hf://"):
        with open(address, "rb") as file:
            yield file
        return
    from datasets import config
    from huggingface_hub import HfFileSystem

    with HfFileSystem(endpoint=config.HF_ENDPOINT).open(address, cache_type="none") as file:
        yield file
