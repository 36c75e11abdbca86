"""The twelve kinds of work: what their prompts share, how long they are, and their caps.

Lengths are in tokens of ``bytes:4``. They are assumptions within the range that is published for
such work; each function states its own. Outputs are lognormal, which the public traces nearly are
(`configs/traces/`), and are cut at the cap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bssim.experiments.result_pages.batches.text import Writer


@dataclass(frozen=True, slots=True)
class Request:
    """One request with the length of its answer, which schedulers do not see."""

    body: dict[str, Any]
    output_tokens: int


Requests = list[Request]


def _chat(system: str, user: str, cap: int, output: int, **more: Any) -> Request:
    messages = [{"role": "user", "content": user}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    body = {"model": "m", "messages": messages, "max_tokens": cap, **more}
    return Request(body, int(np.clip(output, 1, cap)))


def _shuffled(write: Writer, requests: Requests) -> Requests:
    return [requests[i] for i in write.rng.permutation(len(requests)).tolist()]


def classification(write: Writer, count: int) -> Requests:
    """One label out of a list: 600 tokens of instructions, texts of 200; 1 to 4 out of 8."""
    system = write.words(600)
    texts = write.lognormal(200, 0.8, 10, 4000, count)
    outputs = write.rng.integers(1, 5, count)
    return [
        _chat(system, write.words(n), 8, d)
        for n, d in zip(texts.tolist(), outputs.tolist(), strict=True)
    ]


def extraction(write: Writer, count: int) -> Requests:
    """JSON from documents of 800 tokens, five schemas of 400 to 900; 120 out of 512."""
    schemas = [write.words(n) for n in (400, 500, 600, 750, 900)]
    texts = write.lognormal(800, 0.7, 50, 8000, count)
    outputs = write.lognormal(120, 0.5, 8, 512, count)
    which = write.rng.integers(0, len(schemas), count)
    return [
        _chat(schemas[k], write.words(n), 512, d)
        for k, n, d in zip(which.tolist(), texts.tolist(), outputs.tolist(), strict=True)
    ]


def document_questions(write: Writer, count: int) -> Requests:
    """Eight questions about each document of 3,000 tokens, shuffled; 80 out of 256."""
    documents = -(-count // 8)
    sizes = write.lognormal(3000, 0.5, 300, 12000, documents)
    texts = [write.words(n) for n in sizes.tolist()]
    outputs = write.lognormal(80, 0.6, 2, 256, count)
    requests = [
        _chat("", texts[i // 8] + write.words(25), 256, d) for i, d in enumerate(outputs.tolist())
    ]
    return _shuffled(write, requests)


def rag(write: Writer, count: int) -> Requests:
    """Five passages of 250 tokens by popularity (Zipf 1.1), best first; 200 out of 512."""
    system = write.words(300)
    passages = [write.words(250) for _ in range(max(count // 4, 50))]
    chance = 1.0 / np.arange(1, len(passages) + 1) ** 1.1
    chance /= chance.sum()
    outputs = write.lognormal(200, 0.6, 5, 512, count)
    requests = []
    for d in outputs.tolist():
        found = write.rng.choice(len(passages), 5, replace=False, p=chance)
        context = "".join(passages[i] for i in found.tolist())
        requests.append(_chat(system, context + write.words(30), 512, d))
    return requests


def code(write: Writer, count: int) -> Requests:
    """Completions in repositories: 2,000 tokens of one of many, a file of 400; 250 out of 1,024."""
    repositories = [write.words(2000) for _ in range(max(count // 40, 4))]
    files = write.lognormal(400, 0.8, 20, 4000, count)
    outputs = write.lognormal(250, 0.9, 4, 1024, count)
    which = write.rng.integers(0, len(repositories), count)
    return [
        Request({"model": "m", "prompt": repositories[k] + write.words(n), "max_tokens": 1024}, d)
        for k, n, d in zip(which.tolist(), files.tolist(), outputs.tolist(), strict=True)
    ]


def summaries(write: Writer, count: int) -> Requests:
    """Articles of 3,000 tokens that share 60 of instructions; 250 out of 400."""
    system = write.words(60)
    texts = write.lognormal(3000, 0.6, 200, 16000, count)
    outputs = write.lognormal(250, 0.3, 30, 400, count)
    return [
        _chat(system, write.words(n), 400, d)
        for n, d in zip(texts.tolist(), outputs.tolist(), strict=True)
    ]


def translation(write: Writer, count: int) -> Requests:
    """Texts of 400 tokens into eight languages; outputs 1.1 times the text, capped at twice."""
    systems = [write.words(40) for _ in range(8)]
    texts = write.lognormal(400, 0.8, 10, 3000, count)
    ratio = write.rng.lognormal(np.log(1.1), 0.15, count)
    which = write.rng.integers(0, 8, count)
    return [
        _chat(systems[k], write.words(n), 2 * n, round(n * r))
        for k, n, r in zip(which.tolist(), texts.tolist(), ratio.tolist(), strict=True)
    ]


def synthetic_data(write: Writer, count: int) -> Requests:
    """Ten topics with 500 tokens of examples, seeds of 30; 900 out of 2,048."""
    topics = [write.words(500) for _ in range(10)]
    outputs = write.lognormal(900, 0.5, 50, 2048, count)
    which = write.rng.integers(0, 10, count)
    return [
        _chat(topics[k], write.words(30), 2048, d)
        for k, d in zip(which.tolist(), outputs.tolist(), strict=True)
    ]


def judging(write: Writer, count: int) -> Requests:
    """Six rubrics of 1,200 tokens, four answers of 400 to each question of 150; 150 out of 300."""
    rubrics = [write.words(1200) for _ in range(6)]
    answers = write.lognormal(400, 0.6, 20, 2000, count)
    outputs = write.lognormal(150, 0.4, 10, 300, count)
    requests, question, rubric = [], "", ""
    for i, (n, d) in enumerate(zip(answers.tolist(), outputs.tolist(), strict=True)):
        if i % 4 == 0:
            question = write.words(150)
            rubric = rubrics[int(write.rng.integers(0, 6))]
        requests.append(_chat(rubric, question + write.words(n), 300, d))
    return _shuffled(write, requests)


def long_reasoning(write: Writer, count: int) -> Requests:
    """Problems of 150 tokens that share 80; 2,000 out of 8,192, widely spread."""
    system = write.words(80)
    texts = write.lognormal(150, 0.6, 20, 1000, count)
    outputs = write.lognormal(2000, 1.0, 50, 8192, count)
    return [
        _chat(system, write.words(n), 8192, d)
        for n, d in zip(texts.tolist(), outputs.tolist(), strict=True)
    ]


def agent_traces(write: Writer, count: int) -> Requests:
    """Steps of episodes, each with all before it: 1,500 of tools, 300 each; 120 out of 1,024."""
    system = write.words(1500)
    requests: Requests = []
    while len(requests) < count:
        history = write.words(200)
        for _ in range(int(write.rng.integers(4, 16))):
            d = int(write.lognormal(120, 0.8, 5, 1024, 1)[0])
            requests.append(_chat(system, history, 1024, d))
            history += write.words(int(write.lognormal(300, 0.7, 20, 3000, 1)[0]))
    return _shuffled(write, requests[:count])


def mixed(write: Writer, count: int) -> Requests:
    """A quarter each of classification, document questions, synthetic data, long reasoning."""
    kinds = (classification, document_questions, synthetic_data, long_reasoning)
    parts = [kind(write, count // 4 + (k < count % 4)) for k, kind in enumerate(kinds)]
    return _shuffled(write, [request for part in parts for request in part])


KINDS: Mapping[str, Callable[[Writer, int], Requests]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            *(classification, extraction, document_questions, rag, code, summaries),
            *(translation, synthetic_data, judging, long_reasoning, agent_traces, mixed),
        )
    }
)
"""Name -> function that makes a number of requests."""
