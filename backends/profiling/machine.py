"""Facts about this machine, for the provenance of measurements."""

import platform
import subprocess
from pathlib import Path


def cpu_name() -> str:
    """Return the name of the processor from the kernel, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def nvidia_driver() -> str | None:
    """Return the driver version of the first NVIDIA GPU, or None if nvidia-smi gives none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    versions = done.stdout.strip().splitlines()
    return versions[0] if versions else None
