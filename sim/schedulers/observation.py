"""What a policy can observe about output lengths while requests run."""

import numpy as np
import numpy.typing as npt

from bssim.sim.engine import EngineView
from bssim.sim.workload import Workload

IntArray = npt.NDArray[np.int64]


def tokens_seen(
    workload: Workload, requests: IntArray, done: npt.NDArray[np.bool_], engine: EngineView
) -> IntArray:
    """Return the tokens that admitted requests have generated, in the shape of ``requests``.

    ``done``: which of them have finished. Only their true length may be read. For the others, the
    engine reports the tokens so far.
    """
    generated = np.where(done, workload.output_tokens[requests], 0)
    for k in np.flatnonzero(~done).tolist():
        generated[k] = engine.generated_tokens(int(requests[k]))
    return generated
