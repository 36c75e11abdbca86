"""Request data as columns, shared by all replicas of a pool."""

from bssim.sim.workload import Workload


class RequestColumns:
    """One list per attribute, indexed by the row of the request.

    A request runs on one replica of a pool, so replicas share even what changes: each writes only
    the rows of its own requests.
    """

    def __init__(self, workload: Workload) -> None:
        self.name = workload.request_id
        self.prompt: list[int] = workload.prompt_tokens.tolist()
        self.need: list[int] = (workload.prompt_tokens + workload.output_tokens - 1).tolist()
        """Tokens computed when a request is done: the last token sampled is never computed."""
        self.goal: list[int] = list(self.prompt)
        """Tokens to compute before the next one is sampled: the prompt, and after a preemption
        what had been generated too."""
        self.base = [0] * len(workload)
        """Of decoding requests: tokens computed when a step begins, less the number of the step."""
        priority = workload.priority
        self.priority: list[int] = [0] * len(workload) if priority is None else priority.tolist()
