"""Fit the links between GPUs to measured all-reduces: latency, bandwidth and an efficiency curve.

    seconds = 2 (g - 1) latency + sent / (bandwidth x share(g, message bytes))

This is the formula of `RooflineCostModel` for a ring of g GPUs. Each GPU sends 2 (g - 1) / g of the
message in 2 (g - 1) hops. The latency is that of a least-squares line through all messages. The
bandwidth is the best rate after the latency is subtracted. The shares make every measured message
exact, because libraries change algorithm and protocol with the size and so do not follow a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bssim.cost_models.fitting.operator_time import DIRTY_SPREAD, OperatorTime, marked
from bssim.cost_models.hardware import EfficiencyCurve
from bssim.cost_models.step_cost import FloatArray
from bssim.errors import InputError

MOST_LATENCY = 0.9
"""The most that latency may be of the fastest all-reduce, so that time is left for its bytes."""


@dataclass(frozen=True, eq=False)
class LinkFit:
    """The links between the GPUs of a machine, as fitted to all-reduces."""

    bandwidth: float
    """Best rate at which one GPU sends, B/s."""
    latency_s: float
    """Seconds per hop of the ring."""
    curve: EfficiencyCurve
    """Share of ``bandwidth`` over ``gpus`` and message ``bytes``, without the latency."""
    errors: FloatArray
    """|predicted / measured - 1| of the seconds of held-out messages."""
    spread: float
    """Spread of the repetitions, median over messages."""

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
    """Fit the links to measured all-reduces; those held out give the errors.

    Raises InputError if all of them are held out.
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
    """Return seconds per hop from a least-squares fit of relative errors, at least 0."""
    terms = np.stack([hops / seconds, sent / seconds], axis=1)
    scale = terms.max(axis=0)  # hops and bytes differ by ten orders of magnitude
    latency = np.linalg.lstsq(terms / scale, np.ones(len(seconds)))[0][0] / scale[0]
    return float(np.clip(latency, 0.0, MOST_LATENCY * np.min(seconds / hops)))
