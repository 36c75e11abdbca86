"""The links between GPUs from measured all-reduces: latency, bandwidth and a curve for the rest.

    seconds = 2 (g - 1) latency + sent / (bandwidth x share(g, message bytes))

is what `RooflineCostModel` takes for a ring of g GPUs, each of which sends 2 (g - 1) / g of the
message in 2 (g - 1) hops. The latency comes from a least-squares line through all messages, the
bandwidth is the best rate once the latency is taken off, and the shares make every measured message
exact: libraries change algorithm and protocol with the size, which no line follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bssim.cost_models.curves import EfficiencyCurve
from bssim.cost_models.fitting.operator_time import DIRTY_SPREAD, OperatorTime, marked
from bssim.cost_models.step_cost import FloatArray
from bssim.errors import InputError

MOST_LATENCY = 0.9
"""Share of the fastest all-reduce that latency may be: the rest must be left for its bytes."""


@dataclass(frozen=True, eq=False)
class LinkFit:
    """What all-reduces say of the links between a machine's GPUs."""

    bandwidth: float
    """Best rate at which one GPU sends, B/s."""
    latency_s: float
    """Seconds of one hop of the ring."""
    curve: EfficiencyCurve
    """Share of ``bandwidth`` over ``gpus`` and message ``bytes``, latency taken off."""
    errors: FloatArray
    """|predicted / measured - 1| of the seconds of held-out messages."""
    spread: float
    """Median over messages of their repetitions' spread."""

    @property
    def is_dirty(self) -> bool:
        """True if repetitions differed too much to trust the medians."""
        return self.spread > DIRTY_SPREAD

    def seconds(self, gpus: float, message: float) -> float:
        """Return the seconds of one all-reduce of ``message`` bytes among ``gpus``."""
        sent = 2 * (gpus - 1) / gpus * message
        share = float(self.curve.at(gpus=gpus, bytes=message))
        return 2 * (gpus - 1) * self.latency_s + sent / (self.bandwidth * share)


def fit_link(times: Sequence[OperatorTime], source: str) -> LinkFit:
    """Return the links behind measured all-reduces; held-out ones give the error.

    Raises InputError if every one is held out.
    """
    seen = [time for time in times if not time.held_out]
    unseen = [time for time in times if time.held_out]
    if not seen:
        raise InputError("calibrate", "no all-reduce to fit links to", "at least one")
    spread = float(np.median([time.spread for time in times]))
    source = marked(source, spread)
    hops = np.array([2 * (time.at["gpus"] - 1) for time in seen])
    sent = np.array([time.bytes for time in seen])
    seconds = np.array([time.seconds for time in seen])
    latency = _latency(hops, sent, seconds)
    rates = sent / (seconds - hops * latency)
    bandwidth = float(rates.max())
    gpus = sorted({time.at["gpus"] for time in seen})
    sizes = sorted({time.at["bytes"] for time in seen})
    shares = np.full((len(gpus), len(sizes)), np.nan)
    for time, rate in zip(seen, rates, strict=True):
        at = gpus.index(time.at["gpus"]), sizes.index(time.at["bytes"])
        shares[at] = rate / bandwidth
    curve = EfficiencyCurve.build(
        "measured all_reduce", {"gpus": gpus, "bytes": sizes}, shares, source
    )
    fit = LinkFit(bandwidth, latency, curve, np.zeros(0), spread)
    errors = np.array([abs(fit.seconds(**_at(time)) / time.seconds - 1) for time in unseen])
    if len(errors):
        text = f"{source}; {len(errors)} messages held out: median error {np.median(errors):.1%}"
        curve = replace(curve, source=text)
    return replace(fit, curve=curve, errors=errors)


def _at(time: OperatorTime) -> dict[str, float]:
    return {"gpus": time.at["gpus"], "message": time.at["bytes"]}


def _latency(hops: FloatArray, sent: FloatArray, seconds: FloatArray) -> float:
    """Return seconds a hop: least squares of the relative errors of a line, at least 0."""
    terms = np.stack([hops / seconds, sent / seconds], axis=1)
    scale = terms.max(axis=0)  # hops and bytes differ by ten orders of magnitude
    latency = np.linalg.lstsq(terms / scale, np.ones(len(seconds)))[0][0] / scale[0]
    return float(np.clip(latency, 0.0, MOST_LATENCY * np.min(seconds / hops)))
