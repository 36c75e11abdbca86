"""The replicas that are alive, and the calls that they carry out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bssim import __version__
from bssim.errors import InputError
from bssim.experiments.batch.replicas.replica import Replica


@dataclass(frozen=True, slots=True)
class Reply:
    """What a replica returned, or that it failed."""

    replica: int
    method: str | None
    """None if the replica failed. It gets no other reply."""
    value: Any = None


@dataclass(frozen=True, slots=True)
class Need:
    """What Ray must have for one replica."""

    resource: str
    """``GPU`` or ``CPU``."""
    count: int

    def require(self, ray: Any, replicas: int) -> None:
        """Raise InputError unless the nodes of the cluster have room for all replicas.

        A replica's GPUs are on one node. Without this check, a replica would wait forever.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        counts = [int(resources.get(self.resource, 0)) for resources in nodes]
        room = sum(count // self.count for count in counts)
        if room < replicas:
            raise InputError(
                "--dp",
                f"{replicas} on nodes with {' + '.join(map(str, counts))} {self.resource}s",
                f"at most {room}, because each replica takes {self.count} of one node",
            )


class NoReplicaError(RuntimeError):
    """No replica is left."""


class Fleet:
    """Replicas on Ray. One that fails is not started again; the others take its work over."""

    def __init__(
        self,
        ray: Any,
        replicas: int,
        need: Need,
        settings: tuple[str, int],
        say: Callable[[str], None],
    ) -> None:
        """``settings``: the arguments of `Replica`."""
        self._ray, self._say = ray, say
        resources = {"num_gpus": need.count} if need.resource == "GPU" else {"num_cpus": need.count}
        # Ray would restart an actor with an empty engine and unknown requests: max_restarts=0.
        actor = ray.remote(max_restarts=0, scheduling_strategy="SPREAD", **resources)(Replica)
        self._actors = {k: actor.remote(*settings) for k in range(replicas)}
        self._calls: dict[Any, tuple[int, str]] = {}
        """Replica and method of the calls without a reply, oldest first."""
        self.lost = 0

    @property
    def alive(self) -> list[int]:
        """The replicas that have not failed."""
        return list(self._actors)

    def start(self, model: str, engine_args: Sequence[str]) -> None:
        """Start all engines. Raises InputError if none starts."""
        for k in self.alive:
            self.call(k, "start", model, engine_args, __version__)
        for reply in self.replies():
            if reply.method is not None:
                at = reply.value
                self._say(f"replica {reply.replica}: ready on {at.host}, process {at.process}")

    def shared(self, value: Any) -> Any:
        """Return a value that several calls can have as argument, and that is sent once a node."""
        return self._ray.put(value)

    def call(self, replica: int, method: str, *arguments: Any) -> None:
        """Let a replica call a method after all that it was asked before."""
        self._calls[getattr(self._actors[replica], method).remote(*arguments)] = replica, method

    def calls(self, replica: int, method: str) -> int:
        """Return how many calls of a method have no reply yet."""
        return sum(call == (replica, method) for call in self._calls.values())

    def replies(self) -> Iterator[Reply]:
        """Yield replies until every call has one; those of one replica in the order of its calls.

        A replica that fails gets one reply without a method for all its calls. Raises
        `NoReplicaError` if none is left.
        """
        while self._calls:
            (ready,), _ = self._ray.wait(list(self._calls), num_returns=1)
            replica, method = self._calls.pop(ready)
            try:
                value = self._ray.get(ready)
            except self._ray.exceptions.RayError as error:
                self._lose(replica, error)
                yield Reply(replica, None)
            else:
                yield Reply(replica, method, value)

    def each(self, method: str, pieces: Iterable[Any]) -> Iterator[Any]:
        """Let each replica take piece after piece, and yield what it returns for each."""
        source, returned = iter(pieces), deque[Any]()
        held: dict[int, Any] = {}

        def give(replica: int) -> None:
            piece = returned.popleft() if returned else next(source, None)
            if piece is not None:
                held[replica] = piece
                self.call(replica, method, piece)

        for k in self.alive:
            give(k)
        for reply in self.replies():
            piece = held.pop(reply.replica)
            if reply.method is None:
                returned.append(piece)
                for k in set(self.alive) - set(held):
                    give(k)
            else:
                give(reply.replica)
                yield reply.value

    def close(self) -> None:
        """End all replicas."""
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _lose(self, replica: int, error: Any) -> None:
        """Note a failed replica. Raises if it was the last one."""
        self._ray.kill(self._actors.pop(replica))
        self._calls = {ref: call for ref, call in self._calls.items() if call[0] != replica}
        self.lost += 1
        cause = getattr(error, "cause", None)
        why = str(error).splitlines()[0].rstrip(".")
        if cause is not None:
            why = f"{type(cause).__name__}: {cause}"
        if not self._actors:
            if isinstance(cause, InputError):
                raise cause
            raise NoReplicaError(f"no replica is left; replica {replica} failed last: {why}")
        self._say(f"replica {replica} failed: {why}; the others take over its requests")
