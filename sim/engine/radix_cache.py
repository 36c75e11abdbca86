"""A prefix cache over the nodes of a prefix tree, exact to the token (SGLang's radix tree)."""

from collections import OrderedDict
from collections.abc import Collection, Sequence

from bssim.sim.workload import Workload

_NOTHING = [0]


class RadixPaths:
    """The place of each request in the prefix tree, shared by the caches of all replicas."""

    def __init__(self, workload: Workload) -> None:
        tree = workload.tree
        self.parent: list[int] = tree.parent.tolist()
        self.segment: list[int] = tree.segment_tokens.tolist()
        self.depth: list[int] = tree.depth_tokens.tolist()
        self.node: list[int] = workload.node.tolist()
        self.known: list[tuple[int, ...] | None] = [None] * tree.num_nodes
        """What `to` returns, for nodes that it was asked for."""
        self.known[0] = ()

    def to(self, node: int) -> tuple[int, ...]:
        """Return the nodes from below the root to ``node``."""
        path = self.known[node]
        if path is None:
            chain = []
            v = node
            while v:
                chain.append(v)
                v = self.parent[v]
            path = self.known[node] = tuple(reversed(chain))
        return path


class RadixCache:
    """Token-granular prefix cache over the nodes of the prefix tree (SGLang's radix tree).

    Eviction is LRU from the leaves: a node is queued when its last holder lets go, after its
    descendants, and loses tokens from its end.
    """

    def __init__(self, paths: RadixPaths, capacity: int, *, caching: bool, retain: bool) -> None:
        """``caching``: whether prompts can be found again; ``retain``: also without a holder."""
        self.block_size = 1
        self.capacity = capacity
        self.free = capacity
        self._empty = capacity
        self._caching = caching
        self._retain = retain
        self._parent, self._segment, self._depth = paths.parent, paths.segment, paths.depth
        self._node, self._path, self._path_to = paths.node, paths.known, paths.to
        self._cached = [0] * len(self._parent)
        self._ref = [0] * len(self._parent)
        """Users of each node below the root: running requests that end there, and its children
        that have users. A node with users is held."""
        # Oldest first. Node v is key v, its count in `_cached`; private tokens of request r are key
        # -1-r with a list of their count. Nobody finds those of a finished request again, so what
        # finished requests leave between two other entries is one entry, under the key of the first
        # of them.
        self._lru: OrderedDict[int, list[int]] = OrderedDict()
        self._waste: list[int] | None = None
        """The count of such an entry if it is the newest of all."""
        self._preempted: set[int] = set()
        """Requests that may find private tokens of their own."""

    def match(self, request: int, num_tokens: int) -> tuple[int, int]:
        """See `KVCache.match`."""
        if not self._caching:
            return 0, 0
        cached, segment, ref = self._cached, self._segment, self._ref
        node = self._node[request]
        if ref[node] and cached[node] == segment[node] and request not in self._preempted:
            # A running request holds this prefix, and it is whole.
            depth = self._depth[node]
            return (depth if depth < num_tokens else num_tokens - 1), 0
        path = self._path[node]
        if path is None:
            path = self._path_to(node)
        hit = unheld = 0
        for v in path:
            tokens = cached[v]
            hit += tokens
            if not ref[v]:
                unheld += tokens
            if tokens < segment[v]:
                break
        else:
            own = 0
            if request in self._preempted and -1 - request in self._lru:
                own = self._lru[-1 - request][0]
                hit += own
                unheld += own
            again = hit - (num_tokens - 1)
            if again > 0:  # the last token is always computed: it is what gets sampled from
                hit -= again
                if own or not ref[node]:
                    unheld -= again  # and takes the place of the cached one
        return hit, unheld

    def admit(self, request: int, hit_tokens: int, target: int) -> None:
        """See `KVCache.admit`."""
        if self._caching:
            node = self._node[request]
            ref, depth = self._ref, self._depth[node]
            if ref[node]:
                ref[node] += 1
            else:
                self._hold(node, hit_tokens)
            if request in self._preempted:
                self._preempted.remove(request)
                own = self._lru.pop(-1 - request, _NOTHING)[0]
                self.free -= own
                unused = own - max(0, hit_tokens - depth)
                if unused > 0:  # kept, but past the last token that may be a hit: computed again
                    self._empty += unused
                    self.free += unused
            if hit_tokens >= depth:
                tokens = target - hit_tokens
                if tokens <= self._empty:
                    self._empty -= tokens
                    self.free -= tokens
                else:
                    self.take(tokens)
                return
        self.grow(request, hit_tokens, target)

    def _hold(self, node: int, hit_tokens: int) -> None:
        """Hold a node without a user, and the nodes above it that have no user either."""
        cached, ref, lru, parent = self._cached, self._ref, self._lru, self._parent
        if hit_tokens < self._depth[node] and cached[node] == self._segment[node]:
            cached[node] -= 1  # the last prompt token, which is computed again: see `match`
            self._empty += 1
        while node:
            ref[node] += 1
            if ref[node] > 1:
                return
            if lru.pop(node, None) is not None:
                self.free -= cached[node]
            node = parent[node]

    def take(self, blocks: int) -> None:
        """See `KVCache.take`."""
        self.free -= blocks
        empty = self._empty - blocks
        if empty >= 0:
            self._empty = empty
            return
        self._empty = 0
        lru, cached = self._lru, self._cached
        need = -empty
        while need:
            key, count = lru.popitem(last=False)
            tokens = cached[key] if key > 0 else count[0]
            if key > 0:
                cached[key] = max(0, tokens - need)
            elif -1 - key not in self._preempted:
                if count is self._waste:
                    self._waste = None
                if tokens > need:  # the rest is evicted next in any case, so it counts as empty
                    self._empty = tokens - need
                    return
            else:
                count[0] -= need
            if tokens > need:  # the end of the oldest entry is enough
                lru[key] = count
                lru.move_to_end(key, last=False)
                return
            need -= tokens

    def grow(self, request: int, computed: int, target: int) -> None:
        """See `KVCache.grow`."""
        tokens = target - computed
        if tokens <= self._empty:
            self._empty -= tokens
            self.free -= tokens
        else:
            self.take(tokens)
        if not self._caching:
            return
        node = self._node[request]
        if computed >= self._depth[node]:
            return
        cached, depth = self._cached, self._depth
        duplicate = 0
        for v in self._path[node] or self._path_to(node):
            end = depth[v]
            if end <= computed:
                continue
            start = depth[self._parent[v]]
            if start >= target:
                break
            first, last = max(computed, start) - start, min(target, end) - start
            had = cached[v]
            duplicate += max(0, min(last, had) - first)
            if last > had:
                cached[v] = last
        # What another had cached meanwhile is computed again and let go of at once, as SGLang does.
        self._empty += duplicate
        self.free += duplicate

    def release(
        self, request: int, computed: int, finished: bool, known: int | None = None
    ) -> None:
        """See `KVCache.release`. A radix cache can find every token again."""
        private = computed - self._depth[self._node[request]]
        if finished or private <= 0 or not (self._caching and self._retain):
            self.release_finished((request,), {request: computed})
            return
        self.free += private
        self._lru[-1 - request] = [private]
        self._preempted.add(request)
        self._waste = None
        self.release_finished((request,), {request: computed - private})

    def release_finished(
        self, requests: Collection[int], computed: Sequence[int] | dict[int, int]
    ) -> None:
        """See `KVCache.release_finished`."""
        if not self._caching:
            tokens = sum(computed[r] for r in requests)
            self._empty += tokens
            self.free += tokens
            return
        at, depth, parent = self._node, self._depth, self._parent
        cached, ref, lru = self._cached, self._ref, self._lru
        retain, waste, free, empty = self._retain, self._waste, 0, 0
        for request in requests:
            node = at[request]
            private = computed[request] - depth[node]
            if private > 0:
                free += private
                if not retain:
                    empty += private
                elif waste is not None:
                    waste[0] += private
                else:
                    waste = lru[-1 - request] = [private]
            while node:
                users = ref[node] = ref[node] - 1
                if users:
                    break
                if cached[node]:
                    free += cached[node]
                    if retain:
                        lru[node] = _NOTHING
                        waste = None
                    else:
                        empty += cached[node]
                        cached[node] = 0
                node = parent[node]
        self._waste = waste
        self.free += free
        self._empty += empty

    def blocks_for(self, computed: int, target: int) -> int:
        """See `KVCache.blocks_for`."""
        return target - computed
