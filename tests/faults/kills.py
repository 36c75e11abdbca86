"""Commands killed, interrupted or out of disk at any point: the same command then gives the same.

``python -m tests.faults.kills`` prints counts, and adds them to a file with ``--counts``. Run and
replay need vLLM: ``--vllm``.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.cases import VLLM_MODULES, Case, cases, sweep_case, vllm_cases, write_sweep
from tests.faults.forks import Forks

SIGNALS = {"kill": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
STATUSES = {
    "kill": (-signal.SIGKILL,),
    "SIGTERM": (143,),
    "SIGINT": (130,),
    "full disk": (1, 2),
    "a worker killed": (),
}
"""Exit statuses of a command that a fault ended."""
TIMES_IN_ONE_FOLDER = 5
"""How often a command is disturbed before it may end; what one try leaves may hurt the next."""
MOST_LINES = 12
"""Lines of a message to the user; a sweep also reports its cells."""
NAMES = ("hit", "missed", "wrong")


@dataclass(frozen=True)
class Whole:
    """An undisturbed run of a case."""

    result: Any
    seconds: float
    operations: int
    """How often it opened, renamed or removed a file."""
    changes: int
    """How often another process saw that its files had changed."""


class Campaign:
    """Runs cases with faults, and compares what they make with what an undisturbed run makes."""

    def __init__(self, forks: Forks, seed: int) -> None:
        self._forks, self._rng = forks, random.Random(seed)
        self._tries = seed
        self._fault: dict[str, Any] = {}
        self._hit = False
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By command, fault and end: ``hit``, ``missed`` (it ended before), ``wrong``."""
        self.wrong: list[str] = []

    def undisturbed(self, case: Case) -> Whole:
        """Run a case without a fault."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            case.prepare(folder)
            start = time.monotonic()
            process = self._forks.start(case.arguments, folder, count=True)
            changes = wait_for_changes(folder, sys.maxsize, process)
            status = self._forks.end()
            assert status in case.done, (folder / "stderr").read_text()
            seconds = time.monotonic() - start
            operations = int((folder / "operations").read_text())
            return Whole(case.result(folder), seconds, operations, changes)

    def run(self, case: Case, fault: str, times: int, whole: Whole) -> None:
        """Run a case until a fault has hit it ``times`` times."""
        for _ in range(3 * times + 3):
            left = times - self.counts[case.name, fault, "hit"]
            if left <= 0:
                break
            with tempfile.TemporaryDirectory() as name:
                self._folder(case, fault, Path(name), whole, min(left, TIMES_IN_ONE_FOLDER))

    def _folder(self, case: Case, fault: str, folder: Path, whole: Whole, times: int) -> None:
        """Disturb a command up to ``times`` times in one folder, then let it end; compare."""
        case.prepare(folder)
        problem, ended = "", False
        for _ in range(times):
            self._tries += 1
            status, err = self._with_fault(case, fault, folder, whole)
            ended = status in case.done
            missed = ended and (fault != "a worker killed" or not self._hit)
            self.counts[case.name, fault, "missed" if missed else "hit"] += 1
            if ended:  # what says that it is complete must be so
                break
            long = fault != "kill" and err.count("\n") > MOST_LINES
            if status not in STATUSES[fault] or "Traceback" in err or long:
                problem = f"after {self._fault}: exit status {status}: {err[-300:]}"
        if not ended:
            status, err = self._forks.run(self._arguments(case, folder), folder)
            if status not in case.done:
                problem = problem or f"does not resume: exit status {status}: {err[-300:]}"
        try:
            if not problem and case.result(folder) != whole.result:
                problem = "another result"
        except Exception as error:
            problem = f"no result: {type(error).__name__}: {error}"
        if problem:
            self.counts[case.name, fault, "wrong"] += 1
            self.wrong.append(f"{case.name}, {fault}, try {self._tries}: {problem}")
            print(self.wrong[-1], flush=True)

    def _arguments(self, case: Case, folder: Path) -> list[str]:
        started = (folder / "replay.json").exists()
        return [*case.arguments, *(case.resume if started else ())]

    def _with_fault(self, case: Case, fault: str, folder: Path, whole: Whole) -> tuple[int, str]:
        """Run a command with a fault: at a file operation, when files change, or at some time."""
        forks, rng, arguments = self._forks, self._rng, self._arguments(case, folder)
        self._fault = {}
        kind = self._tries % 3
        if fault == "full disk" and kind and not case.has_engine:  # one operation after another
            limit = {"full": True} if kind == 1 else {"file_size": int(10 ** rng.uniform(0, 4))}
            self._fault = {"at": 1 + self._tries % whole.operations, **limit}
            return forks.run(arguments, folder, **self._fault)
        if kind == 0 and fault in SIGNALS:
            self._fault = {"at": rng.randint(1, whole.operations), "signal": int(SIGNALS[fault])}
            return forks.run(arguments, folder, **self._fault)
        process = forks.start(arguments, folder)
        if kind == 2 and fault in SIGNALS:
            self._fault = {"seconds": rng.uniform(0, whole.seconds)}
            time.sleep(self._fault["seconds"])
        else:
            least = max(1, whole.changes // 3 if case.has_engine else 1)
            self._fault = {"changes": rng.randint(least, max(least, whole.changes))}
            wait_for_changes(folder, self._fault["changes"], process)
        with contextlib.suppress(ProcessLookupError):
            if fault in SIGNALS:
                os.kill(process, SIGNALS[fault])
            elif fault == "full disk":  # files do not grow any further
                sizes = [size for size, _ in _files(folder).values()]
                resource.prlimit(process, resource.RLIMIT_FSIZE, (max(sizes, default=0),) * 2)
            else:
                victims = workers(process)
                self._hit = bool(victims)
                if victims:
                    os.kill(rng.choice(victims), signal.SIGKILL)
        return forks.end(), forks.said(folder)


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of the files in a folder, without stdout and stderr."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with contextlib.suppress(FileNotFoundError):
                if name not in ("stdout", "stderr"):
                    seen = os.stat(path)
                    found[path] = (seen.st_size, seen.st_mtime_ns)
    return found


def wait_for_changes(folder: Path, number: int, process: int) -> int:
    """Wait until the files of a folder were seen to change ``number`` times, or a process ended.

    Returns how often they were.
    """
    before, changes = _files(folder), 0
    while changes < number and not has_ended(process):
        time.sleep(0.002)
        now = _files(folder)
        changes += now != before
        before = now
    return changes


def has_ended(process: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        return not Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


def workers(parent: int) -> list[int]:
    """Return the processes in which a sweep runs its cells."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(state[1]) == parent and "popen_loky" in command:
            found.append(int(folder.name))
    return found


def _add(path: Path, counts: Counter[tuple[str, str, str]], times: dict[str, float]) -> None:
    """Add counts to those in a JSON file: command -> fault -> end -> count."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for (command, fault, end), count in counts.items():
        row = known.setdefault(command, {}).setdefault(fault, dict.fromkeys(NAMES, 0))
        row[end] += count
    for command, seconds in times.items():
        known[command]["seconds"] = round(known[command].get("seconds", 0) + seconds)
    path.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    """Run the campaign, print its counts, and fail if a case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=40, help="kills of each command")
    parser.add_argument("--others", type=int, default=10, help="other faults of each command")
    parser.add_argument("--only", default="", help="one command")
    parser.add_argument("--vllm", action="store_true", help="run and replay instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counts", type=Path, help="a JSON file to add the counts to")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Forks(*(VLLM_MODULES if options.vllm else ())) as forks,
    ):
        if options.vllm:
            todo = vllm_cases(Path(folder))
        else:
            write_sweep(Path(folder))
            assert forks.run(sweep_case().arguments, Path(folder))[0] == 0
            todo = cases(Path(folder) / "results/demo")
        wrong = []
        for case in todo:
            if options.only not in ("", case.name):
                continue
            campaign, start = Campaign(forks, options.seed), time.monotonic()
            whole = campaign.undisturbed(case)
            for fault in case.faults:
                campaign.run(
                    case, fault, options.times if fault == "kill" else options.others, whole
                )
                row = {end: campaign.counts[case.name, fault, end] for end in NAMES}
                print(f"{case.name}, {fault}: {row}", flush=True)
            if options.counts:
                _add(options.counts, campaign.counts, {case.name: time.monotonic() - start})
            wrong += campaign.wrong
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
