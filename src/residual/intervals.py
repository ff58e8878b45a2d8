"""95 % intervals, and the one way in which each kind is written.

Two kinds are about two different things, and neither says anything of the other:

- over fits (seeds, draws): how far another fit's accuracy may lie. By Student's t, written `± 0.3`.
- over test pictures: how far the accuracy on other pictures of the kind may lie. By Wilson for a share and by
  Newcombe for a difference of two shares on the same pictures, written as a range, `(95.2 to 97.5)`.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from residual.errors import FewSamplesWarning

# Two-sided 95 % quantiles with 1, 2, … degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
_Z95 = 1.959964

# Of fewer pictures an accuracy says next to nothing: at 50 % its interval spans a third of all there is, and
# with less than 6 not even all of them changing would be significant.
FEW_SAMPLES = 30
_AGREE = 0.0005  # half a tenth of a point: what one decimal of a per cent doesn't show
OVER_SEEDS = "±: half the 95 % t interval"  # for notes under tables, before what it's over


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether it leaves zero out: of a difference, that it is more than chance."""
        return self.low > 0 or self.high < 0


def t95(freedom: int) -> float:
    """How many standard errors a 95 % interval reaches to either side."""
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.5 / freedom


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half the width of its 95 % interval by Student's t; None for one value.

    Of accuracies of several fits on the same pictures it is of the fits alone: fits that agree have none.

    Example:
        >>> mean_and_interval([2.0, 2.0, 2.0])
        (2.0, 0.0)
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, t95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def wilson(correct: float | int, n: int) -> Interval:
    """Wilson's score interval of a share of `n` pictures (Wilson 1927; Brown, Cai and DasGupta 2001).

    `(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)` with `p = correct/n` and `z = 1.96`: it stays within
    0 and 1, and has a width where all are right.

    Args:
        correct: how many are right; of several fits their mean, for which the interval is a little wide.
        n: how many there are.

    Raises:
        ValueError: there is none, or more are right than there are.

    Example:
        >>> share, low, high = wilson(965, 1_000)
        >>> f"{share:.3f} ({low:.3f} to {high:.3f})"
        '0.965 (0.952 to 0.975)'
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(
            f"a share is of one picture at least, and at most all are right; got {correct} of {n}"
        )
    share, z2 = correct / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


Right = Bool[np.ndarray, " n"] | Float[np.ndarray, " n"]


def paired_difference(before: Right, after: Right) -> Interval:
    """How much more of the same pictures are right `after`, by Newcombe (1998, method 10).

    Wilson's intervals of the two shares are put together with the correlation `φ` of being right:
    `δ² = (p−l)² − 2φ(p−l)(u'−p') + (u'−p')²` below, likewise above.

    Args:
        before, after: of each picture, whether it is right; or the share of fits in which it is.

    Raises:
        ValueError: there is no picture, or they aren't of as many.

    Example:
        >>> import numpy as np
        >>> difference = paired_difference(np.arange(100) < 80, np.arange(100) < 90)
        >>> f"{difference.value:+.2f} ({difference.low:+.2f} to {difference.high:+.2f}), {difference.tells}"
        '+0.10 (+0.04 to +0.17), True'
    """
    if before.shape != after.shape:
        raise ValueError(f"the same pictures are compared; got {len(before)} and {len(after)}")
    old, new = before.astype(np.float64), after.astype(np.float64)
    n = len(old)
    p, q = wilson(float(old.sum()), n), wilson(float(new.sum()), n)
    together = n * n * (float((old * new).mean()) - p.value * q.value)
    if together > 0:  # Newcombe's correction for continuity
        together = max(together - n / 2, 0.0)
    spread = n * n * math.sqrt(p.value * (1 - p.value) * q.value * (1 - q.value))
    phi = together / spread if spread else 0.0
    below, above = (
        math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))
        for a, b in ((q.value - q.low, p.high - p.value), (q.high - q.value, p.value - p.low))
    )
    value = round(q.value - p.value, 12)  # means of fits that are equal may differ in their last bits
    return Interval(value, max(-1.0, value - below), min(1.0, value + above))


def over_seeds(half: float | int | None) -> str:
    """` ± 0.3`, in points of a per cent; nothing of one fit, and of fits that agree to the digit shown: that
    would look as if nothing were left open.
    """
    return "" if half is None or math.isnan(half) or half < _AGREE else f" ± {100 * half:.1f}"


def shown(share: float | int, half: float | int | None = None, n: int | None = None) -> str:
    """An accuracy with all that is known of how far it holds: `98.5 ± 0.2 % (97.5 to 99.1)`.

    Args:
        share: of the pictures that are right; of several fits the mean.
        half: half the width of its interval over fits.
        n: how many pictures there are, for Wilson's interval.
    """
    over = f" {over_pictures(wilson(share * n, n))}" if n else ""
    return f"{100 * share:.1f}{over_seeds(half)} %{over}"


def over_pictures(interval: Sequence[float], what: str = "") -> str:
    """`(95.2 to 97.5)`, in per cent.

    Args:
        interval: its two ends are the last two.
        what: of what, after the numbers.
    """
    low, high = (round(100 * end, 1) + 0.0 for end in interval[-2:])  # no -0.0
    return f"({low:.1f} to {high:.1f}{what})"


def few_samples(n: int, correct: float | int | None = None) -> str:
    """What so few test pictures can't tell, in a sentence; nothing where there are enough.

    Args:
        n: how many there are.
        correct: how many of them are right, if that's known: else half.
    """
    if not 0 < n < FEW_SAMPLES:
        return ""
    share, low, high = wilson(n / 2 if correct is None else correct, n)
    of = "one picture says" if n == 1 else f"{n} pictures say"
    return (
        f"Only {of} next to nothing: an accuracy of {100 * share:.0f} % of them is anything from "
        f"{100 * low:.0f} to {100 * high:.0f} % of others like them. Test on {FEW_SAMPLES} or more."
    )


def warn_of_few(n: int, correct: float | int | None = None) -> None:
    """A `FewSamplesWarning` where there are less than `FEW_SAMPLES`."""
    if told := few_samples(n, correct):
        warnings.warn(told, FewSamplesWarning, stacklevel=3)
