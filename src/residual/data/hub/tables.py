"""The splits of a source, each fetched when its pictures are asked for: no file of another split is.

Parquet files tell columns by their ends, and labels without the pictures beside them: where a split is only
asked for these, so much of its files is read over the network, and nothing is kept. `Streamed` reads pictures
in that way, too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from residual.errors import ResidualError, UnreachableHubError
from residual.libraries import hub_reason, is_of_network
from residual.read_ahead import ahead

_AT_ONCE = 8  # files that are looked into
_PARTS = 2  # of files, whose pictures stay in memory; each has a hundred or a thousand
_SECRET = -1  # for a label, where nothing stands there
_MOST_BYTES, _MOST_TIMES = 2**30, 50  # that a file may unpack to: so much, or so many times its own size
_MOST_ROWS = 2**20  # of a file of any size; else one a byte, for each has a picture


class File:
    """A Parquet file, whose end is read once.

    Args:
        address: that `opened` takes.
    """

    def __init__(self, address: str):
        self.address = address

    @cached_property
    def about(self) -> tuple[Any, Any]:
        """What its end says of its parts, and its schema.

        Raises:
            ResidualError: it says to hold what no file of its size does.
        """
        import pyarrow.parquet

        with opened(self.address) as content:
            size = content.seek(0, 2)
            file = pyarrow.parquet.ParquetFile(content)
            parts, schema = file.metadata, file.schema_arrow
        unpacked = sum(parts.row_group(part).total_byte_size for part in range(parts.num_row_groups))
        if unpacked > max(_MOST_BYTES, _MOST_TIMES * size) or parts.num_rows > max(_MOST_ROWS, size):
            raise ResidualError(
                f"{self.address.rpartition('/')[2]} has {size:,} bytes, and says to hold {parts.num_rows:,} "
                f"rows of {unpacked:,} bytes: it isn't unpacked"
            )
        return parts, schema

    def cells(self, column: str, part: int | None = None) -> Any:
        """A column of one of its parts, or of all, as Arrow has it."""
        import pyarrow.parquet

        parts, _ = self.about
        with opened(self.address) as content:
            file = pyarrow.parquet.ParquetFile(content, metadata=parts)
            read = file.read([column]) if part is None else file.read_row_group(part, columns=[column])
        return read[column]


class Split:
    """One split of a source.

    Args:
        load: its table, a `datasets.Dataset`.
        files: Parquet files that the table is made of, as addresses that `opened` takes; none where it has to
            be loaded for whatever is asked.
        features: its columns, where they are known.
        told: wraps what reads files, so that it says what goes wrong there.
        hidden: columns that are known to say nothing in it.
        absent: whether it can't be had now, so that no more than this is known of it.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        files: Sequence[str] = (),
        features: Any = None,
        told: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda read: read,
        hidden: Iterable[str] = (),
        absent: bool = False,
    ):
        self._load, self._columns, self._told = told(load), features, told
        self._schema, self._column, self._hidden = map(told, (schema, _column, _hidden))
        self.files = tuple(map(File, files))
        self.hidden, self._absent = set(hidden), absent

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

    @property
    def is_here(self) -> bool:
        """Whether nothing has to be fetched for it any more."""
        return not (self.by_files or self._absent)

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
        if column not in self.hidden and not self._absent:
            says_nothing = self._hidden(self.files, column) if self.by_files else None
            if says_nothing is None:
                says_nothing = set(self.cells(column).unique().to_pylist()) <= {_SECRET, None}
            if says_nothing:
                self.hidden.add(column)
        return column not in self.hidden


def schema(file: File) -> Any:
    """The columns of a file."""
    import datasets

    return datasets.Features.from_arrow_schema(file.about[1])


def _column(files: Sequence[File], column: str) -> Any:
    import pyarrow

    each = ahead(lambda file: file.cells(column).chunks, files, _AT_ONCE, _AT_ONCE)
    return pyarrow.chunked_array([part for parts in each for part in parts])


def _hidden(files: Sequence[File], column: str) -> bool | None:
    """Whether a column says nothing, by what the files' ends tell of its values; None where they don't."""
    for file in files:
        about, _ = file.about
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
        files: that the rows are in.
        column: of images.
        rows: `(n,)`, which of all files' rows.
    """

    def __init__(self, files: Sequence[File], column: str, rows: np.ndarray):
        self._column, self._rows = column, rows
        counts: list[int] = []
        self._parts: list[tuple[File, int]] = []
        for file, (about, _) in zip(
            files, ahead(lambda file: file.about, files, _AT_ONCE, _AT_ONCE), strict=True
        ):
            counts += [about.row_group(part).num_rows for part in range(about.num_row_groups)]
            self._parts += [(file, part) for part in range(about.num_row_groups)]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The cell of one row, by its column.

        Raises:
            ResidualError: its part can't be fetched, however often the hub's client tries, or isn't what the
                file's end says: the fault of no picture.
        """
        row = int(self._rows[index])
        place = int(np.searchsorted(self._ends, row, side="right"))
        file, part = self._parts[place]
        try:
            cells = _part(file, part, self._column)
        except Exception as error:  # each client of a network has exceptions of its own
            kind = UnreachableHubError if is_of_network(error) else ResidualError
            raise kind(
                f"{file.address} can't be read any more ({hub_reason(error)}).",
                "What is done by now is kept: the same again goes on from there.",
            ) from error
        return {self._column: cells[row - int(self._ends[place])].as_py()}


@lru_cache(maxsize=_PARTS)
def _part(file: File, part: int, column: str) -> Any:
    return file.cells(column, part).combine_chunks()


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
