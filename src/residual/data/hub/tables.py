"""The splits of a source, each fetched when its pictures are asked for: no file of another split is.

Parquet files tell columns by their ends, and labels without the pictures beside them: where a split is only
asked for these, so much of its files is read over the network, and nothing is kept. `Streamed` reads pictures
in that way, too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from residual.errors import ResidualError
from residual.libraries import hub_reason
from residual.read_ahead import ahead

_AT_ONCE = 8  # files that are looked into
_PARTS = 2  # of files, whose pictures stay in memory; each has a hundred or a thousand
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
        self._load, self._columns, self._told = told(load), features, told
        self._schema, self._column, self._hidden = map(told, (_schema, _column, _hidden))
        self.files = tuple(files)

    @cached_property
    def table(self) -> Any:
        """The table itself, fetched once."""
        return self._load()

    def pictures(self, column: str, rows: np.ndarray, stream: bool) -> Streamed | Any:
        """Rows of a column of images, `.select(rows)` of a `datasets.Dataset` with the cells as they are
        stored; or `Streamed`, where that is asked for and the table isn't there already.
        """
        if stream and self.by_files:
            return self._told(Streamed)(self.files, column, rows)
        import datasets

        images = self.table.with_format(None).select_columns([column])
        return images.cast_column(column, datasets.Image(decode=False)).select(rows)

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

    def of_file(file: str) -> list[Any]:
        with opened(file) as content:
            return pyarrow.parquet.read_table(content, columns=[column])[column].chunks

    each = ahead(of_file, files, _AT_ONCE, _AT_ONCE)
    return pyarrow.chunked_array([part for parts in each for part in parts])


def _hidden(files: Sequence[str], column: str) -> bool | None:
    """Whether a column says nothing, by what the files' ends tell of its values; None where they don't."""
    import pyarrow.parquet

    for file in files:
        with opened(file) as content:
            about = pyarrow.parquet.read_metadata(content)
        whole = [about.schema.column(place).path for place in range(about.num_columns)]
        for number in range(about.num_row_groups):
            part = about.row_group(number).column(whole.index(column))  # not one inside of another column
            said = part.statistics
            if said is None or not said.has_null_count:
                return None
            if said.null_count < part.num_values and not said.has_min_max:
                return None
            if said.has_min_max and not said.min == said.max == _SECRET:
                return False
    return True


class Streamed:
    """Rows of a column of Parquet files, fetched as they are asked for: the part of a file that a row is in,
    of which the last ones stay in memory, so that rows in their order are fetched once.

    Args:
        files: addresses that `opened` takes.
        column: of images.
        rows: `(n,)`, which of all files' rows.
    """

    def __init__(self, files: Sequence[str], column: str, rows: np.ndarray):
        self._column, self._rows = column, rows
        counts = [count for file in ahead(_counts, files, _AT_ONCE, _AT_ONCE) for count in file]
        self._parts = [(file, part) for file, part, _ in counts]
        self._ends = np.cumsum([count for *_, count in counts])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = int(self._rows[index])
        place = int(np.searchsorted(self._ends, row, side="right"))
        file, part = self._parts[place]
        try:
            cells = _part(file, part, self._column)
        except (OSError, ValueError, RuntimeError) as error:  # of the network, or of the file
            raise ResidualError(f"{file} can't be read any more ({hub_reason(error)}).") from error
        return {self._column: cells[row - int(self._ends[place])].as_py()}


def _counts(file: str) -> list[tuple[str, int, int]]:
    """The parts of a file: it, their numbers and how many rows they have."""
    import pyarrow.parquet

    with opened(file) as content:
        about = pyarrow.parquet.read_metadata(content)
    return [(file, part, about.row_group(part).num_rows) for part in range(about.num_row_groups)]


@lru_cache(maxsize=_PARTS)
def _part(file: str, part: int, column: str) -> Any:
    """A column of one part of a file."""
    import pyarrow.parquet

    with opened(file) as content:
        table = pyarrow.parquet.ParquetFile(content).read_row_group(part, columns=[column])
    return table[column].combine_chunks()


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
