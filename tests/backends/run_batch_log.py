"""A vLLM scheduler that logs which prompts it admits, for a ``vllm run-batch`` in a process."""

import os
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class AdmissionLog(Scheduler):
    """Appends the prompt length of every request at its first admission to a file."""

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        output = super().schedule(*args, **kwargs)
        with Path(os.environ["ADMISSION_LOG"]).open("a") as log:
            for request in output.scheduled_new_reqs:
                log.write(f"{len(request.prompt_token_ids)}\n")
        return output
