"""Runs the ``bssim`` command in forks of one process that has vLLM imported: a start takes 2 s.

Reads a JSON list of arguments a line from stdin, forks, and writes the child's process id; then,
when the child has ended, its exit status (negative: the signal that killed it).
"""

import json
import os
import sys


def main() -> None:
    """Serve commands until stdin ends."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import vllm.entrypoints.launchers.run_batch
    import vllm.model_executor.models.llama
    import vllm.v1.engine.llm_engine  # noqa: F401

    from bssim.experiments.cli import main as bssim

    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            try:
                bssim(json.loads(line))
            except SystemExit as end:
                os._exit(int(end.code or 0))
            finally:
                os._exit(70)
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)


if __name__ == "__main__":
    main()
