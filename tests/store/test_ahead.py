"""Work that is done ahead: in order, no further than asked, and left alone when nobody wants it."""

import gc
import threading

import pytest

from residual.read_ahead import ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_in_order(threads):
    assert list(ahead(lambda number: number**2, range(20), 4, threads)) == [n**2 for n in range(20)]


def test_no_further_than_asked():
    begun = []
    results = ahead(lambda number: begun.append(number), range(100), 2)
    next(results)
    results.close()
    assert begun in ([0, 1], [0, 1, 2], [0])


def test_what_goes_wrong_comes_where_it_belongs():
    results = ahead(lambda number: 1 // (3 - number), range(6), 2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError, match="division"):
        next(results)


def test_collected_in_its_own_thread():
    """The collector may take an iterator away in one of the threads that work for it."""
    free, held, done = threading.Event(), [], threading.Event()

    def work(number):
        if number == 1:
            free.wait(10)
            held.clear()
            gc.collect()
            done.set()
        return number

    held.append(ahead(work, range(9), 2))
    next(held[0])
    free.set()
    assert done.wait(10)
