"""Run ``bssim`` commands in forks of one process that has imported them, with a fault in each.

``python -m tests.faults.forks [MODULE ...]`` imports more modules, such as vLLM's. It reads lines
of JSON, see `Forks.start`, and writes the process id of each command and then its exit status.
"""

import contextlib
import errno
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULES = (
    *("pandas", "pyarrow.parquet", "joblib", "bssim.api", "bssim.backends.replay"),
    *("bssim.experiments.cli", "bssim.experiments.batch", "bssim.experiments.sweeps"),
    "bssim.experiments.plots",
)
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
SMALL_FLUSH_S = 0.02
"""Small replays then write their journals many times, as long ones do."""
_operations = 0
"""File operations of this process."""
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.truncate")


class Forks:
    """Starts commands, one at a time. A context manager."""

    def __init__(self, *modules: str) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks", *modules],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    def start(self, arguments: list[str], folder: Path, **fault: Any) -> int:
        """Start a command in ``folder``, where it writes ``stdout`` and ``stderr``.

        Faults: ``at`` (the number of the file operation at which the fault happens) with
        ``signal`` (sent to itself), ``full`` (no file can be opened from then on), ``file_size``
        (no file can grow beyond it from then on; with ``kills``, the write that tries ends the
        process) or ``readonly``; ``memory`` (the most bytes of it) and ``alarm`` (SIGALRM after so
        many seconds). ``count`` writes the number of operations to the file ``operations``.
        Returns the process id.
        """
        assert self._server.stdin is not None
        (folder / "stderr").unlink(missing_ok=True)
        request = {"arguments": arguments, "folder": str(folder), "fault": fault}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """Wait for the command; return its exit status, negative for a signal."""
        return int(self._line())

    def run(self, arguments: list[str], folder: Path, **fault: Any) -> tuple[int, str]:
        """Run a command; return its exit status and what it wrote to stderr."""
        self.start(arguments, folder, **fault)
        return self.end(), self.said(folder)

    def said(self, folder: Path) -> str:
        """Return what the last command in ``folder`` wrote to stderr."""
        file = folder / "stderr"
        return file.read_text() if file.exists() else ""  # killed before it could open the file


def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
    """Return whether an audit event is about to change a file of the user."""
    if event == "open":
        path, _, flags = arguments
        changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        named = isinstance(path, str | bytes) and not os.fsdecode(path).startswith("/dev/")
        return bool(changes) and named and "__pycache__" not in os.fsdecode(path)
    return event in OPERATIONS


def _arm(fault: dict[str, Any]) -> None:
    """Let the fault happen at its time, in this process."""
    if "memory" in fault:  # beyond what the imported modules have
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + fault["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (most, -1))
    if "alarm" in fault:
        signal.alarm(fault["alarm"])
    if "at" not in fault and "count" not in fault:
        return
    at, me = fault.get("at", sys.maxsize), os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        global _operations
        if os.getpid() != me or not _writes(event, arguments):
            return
        _operations += 1
        if _operations < at:
            return
        if _operations == at and "signal" in fault:
            os.kill(me, fault["signal"])
        if "file_size" in fault:
            if fault.get("kills"):  # Python ignores SIGXFSZ, so that a write raises OSError
                resource.setrlimit(resource.RLIMIT_CORE, (0, -1))
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault["file_size"], -1))
        if event != "os.remove":
            for name, number in (("full", errno.ENOSPC), ("readonly", errno.EROFS)):
                if fault.get(name):
                    raise OSError(number, os.strerror(number), arguments[0])

    sys.addaudithook(hook)


def _command(request: dict[str, Any]) -> None:
    from bssim.experiments.cli import main

    os.setpgid(0, 0)
    os.chdir(request["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Before and after the command, which has its own handler, SIGTERM would end with status -15.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    _arm(request["fault"])
    try:
        main(request["arguments"])
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what follows is not the command's
    if "count" in request["fault"]:
        operations = str(_operations)
        Path("operations").write_text(operations)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def serve(modules: list[str]) -> None:
    """Serve commands until stdin ends."""
    for module in (*MODULES, *modules):
        importlib.import_module(module)
    sys.modules["bssim.backends.replay"].FLUSH_S = SMALL_FLUSH_S  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _command(json.loads(line))
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # workers that outlived a killed parent
        print(status, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1:])
