"""An executor in this process, for what no process is needed for."""

from __future__ import annotations

from residual.executors.parcels import Parcel, packed, unpacked


class Here:
    """Tasks for three, done one after another, the last one first; what comes and goes is packed."""

    def workers(self):
        return 3

    def run(self, context, work, tasks, *, tick=None):
        parcel = Parcel(context)
        try:
            ready = Parcel.opened(parcel.path)()
        finally:
            parcel.close()
        for number, task in reversed([*enumerate(tasks)]):
            tick is None or tick()
            yield number, unpacked(packed(work(ready, unpacked(packed(task)))))

    def close(self):
        """Nothing was started."""
