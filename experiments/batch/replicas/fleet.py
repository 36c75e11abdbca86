"""The replicas that are alive, and the pieces of work that they take one after another."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bssim import __version__
from bssim.errors import InputError
from bssim.experiments.batch.replicas.replica import Replica

P = TypeVar("P")


@dataclass(frozen=True, eq=False)
class Call(Generic[P]):
    """A piece of work, and the replica that does it."""

    replica: int
    piece: P


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
        # Ray would restart an actor with an empty engine and an unknown shard: max_restarts=0.
        actor = ray.remote(max_restarts=0, scheduling_strategy="SPREAD", **resources)(Replica)
        self._actors = {k: actor.remote(*settings) for k in range(replicas)}
        self.lost = 0

    def __len__(self) -> int:
        """Return the number of replicas that are alive."""
        return len(self._actors)

    def start(self, model: str, engine_args: Sequence[str]) -> None:
        """Start all engines. Raises InputError if none starts."""
        waiting = {
            actor.start.options(num_returns="streaming").remote(model, engine_args, __version__): k
            for k, actor in self._actors.items()
        }
        while waiting:
            (ready,), _ = self._ray.wait(list(waiting), num_returns=1)
            k = waiting.pop(ready)
            try:
                at = self._ray.get(next(ready))
            except self._ray.exceptions.RayError as error:
                self._lose(k, error)
            else:
                self._say(f"replica {k}: ready on {at.host}, process {at.process}")

    def give(
        self, method: str, pieces: Iterable[P], rest: Callable[[Call[P]], Sequence[P]]
    ) -> Iterator[tuple[Call[P], Any]]:
        """Let each replica take piece after piece. Yields what they send, and None at the end of
        each piece.

        ``rest`` returns what others must do of a piece whose replica failed. Raises
        `NoReplicaError` if none is left.
        """
        source, returned = iter(pieces), deque[P]()
        busy: dict[Any, Call[P]] = {}
        idle = deque(self._actors)
        while True:
            while idle:
                piece = returned.popleft() if returned else next(source, None)
                if piece is None:
                    break
                k = idle.popleft()
                send = getattr(self._actors[k], method).options(num_returns="streaming")
                busy[send.remote(piece)] = Call(k, piece)
            if not busy:
                return
            (ready,), _ = self._ray.wait(list(busy), num_returns=1)
            call = busy.pop(ready)
            try:
                item = self._ray.get(next(ready))
            except StopIteration:
                idle.append(call.replica)
                yield call, None
            except self._ray.exceptions.RayError as error:
                self._lose(call.replica, error)
                returned.extend(rest(call))
            else:
                busy[ready] = call  # at the end, so that no replica waits for another
                yield call, item

    def close(self) -> None:
        """End all replicas."""
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _lose(self, replica: int, error: Any) -> None:
        """Note a failed replica. Raises if it was the last one."""
        self._ray.kill(self._actors.pop(replica))
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
