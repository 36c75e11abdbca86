"""What this machine is, for the provenance of whatever is measured on it."""

import platform
import subprocess
from pathlib import Path


def cpu_name() -> str:
    """Return the processor's name as the kernel gives it, or at least its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def nvidia_driver() -> str | None:
    """Return the version of the first NVIDIA GPU's driver, None where nvidia-smi has none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    versions = done.stdout.strip().splitlines()
    return versions[0] if versions else None
