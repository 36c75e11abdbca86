"""What `bssim run` reports: its progress, its plans and its end."""

from dataclasses import dataclass, field

from bssim.backends.vllm import Answer
from bssim.experiments.batch.run_results import FinishedRows


@dataclass(frozen=True, slots=True)
class PlanMade:
    """A chosen order and its predicted time."""

    at_s: float
    """Time of the plan, in seconds after the first step."""
    left: int
    """Requests that the plan covers."""
    scheduler: str
    predicted_s: float
    """Predicted seconds from the first step to the end of the run, or of the replica's shard."""
    tried: dict[str, float]
    """Simulated seconds for the rest, by scheduler."""
    replica: int = 0


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The progress of a run, reported after every step."""

    finished: int
    num_requests: int
    elapsed_s: float
    throughput_tok_s: float
    scheduler: str
    left_s: float | None
    predicted_s: float | None
    """Seconds of the whole run as the last plan predicts them; None before the first plan."""


@dataclass(slots=True)
class RunReport:
    """What a run did."""

    out: str
    num_requests: int
    finished_before: int
    """Rows written by an earlier, interrupted run."""
    finished: int = 0
    """Rows that this run wrote, including failed ones."""
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    wall_s: float = 0.0
    """Seconds from the first step to the last row, without engine start and rendering."""
    start_s: float = 0.0
    """Seconds until the engine was ready, or all replicas."""
    render_s: float = 0.0
    """Seconds from then until all lines were token ids."""
    throughput_tok_s: float = 0.0
    plans: list[PlanMade] = field(default_factory=list)
    replicas: int = 1
    lost_replicas: int = 0
    """Replicas that failed; the others took over their requests."""

    def record(self, answer: Answer, results: FinishedRows) -> None:
        """Write an answer to ``results`` and count it, unless it has a row there."""
        if answer.index in results.rows:
            return
        results.write(answer.index, answer.row)
        self.finished += 1
        self.failed += int(results.rows[answer.index]["failed"])
        self.prompt_tokens += answer.prompt_tokens
        self.output_tokens += answer.output_tokens
        self.cached_tokens += answer.cached_tokens

    def end(self, wall_s: float) -> None:
        """Note the seconds of the run, and its throughput."""
        self.wall_s = wall_s
        self.throughput_tok_s = (self.prompt_tokens + self.output_tokens) / wall_s


class RunError(RuntimeError):
    """A run ended early. Its results are kept, and the same call continues it."""
