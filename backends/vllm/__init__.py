"""vLLM: the offline engine, its OpenAI server without a network, and its scheduler.

vLLM itself is imported when an engine starts, not with this package.
"""

from bssim.backends.vllm.engine import VllmBackend, read_back
from bssim.backends.vllm.openai import (
    ENDPOINTS,
    Answer,
    OpenAISession,
    Prompt,
    check_parallel,
    devices,
    parse_arguments,
)
from bssim.backends.vllm.scheduler import admitting, base_scheduler, recording

__all__ = [
    "ENDPOINTS",
    "Answer",
    "OpenAISession",
    "Prompt",
    "VllmBackend",
    "admitting",
    "base_scheduler",
    "check_parallel",
    "devices",
    "parse_arguments",
    "read_back",
    "recording",
]
