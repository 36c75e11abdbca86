"""vLLM's paged prefix cache: blocks, reference counts, the free queue and its eviction order.

The cache is exact in every step without one object per block. A block that several requests can
share is an object with a reference count. Blocks after a request's shared prefix can be found again
only by that request, after a preemption. They are a count while it runs, objects when it is
preempted, and a single run in the free queue when it finishes. Empty (unhashed) free blocks are
also a count, because vLLM puts them at the front of the queue, where they are interchangeable.

The rules are those of vLLM 0.32 `v1/core/{block_pool,kv_cache_manager,kv_cache_utils}.py`.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence

from bssim.sim.workload import Workload

_Key = int | tuple[int, int]
"""Content of a full block: a number for a shared prompt block, (request, index) otherwise."""


class BlockPaths:
    """The shared full blocks of each prompt, by content; the caches of all replicas share it."""

    def __init__(self, workload: Workload, block_size: int) -> None:
        tree = workload.tree
        self.block_size = block_size
        self.node: list[int] = workload.node.tolist()
        self._parent: list[int] = tree.parent.tolist()
        depth_blocks = (tree.depth_tokens // block_size).tolist()
        # Content numbers of the full blocks that end inside each node's segment.
        first = 0
        self._own_keys: list[range] = [range(0)]
        for v in range(1, tree.num_nodes):
            count = depth_blocks[v] - depth_blocks[self._parent[v]]
            self._own_keys.append(range(first, first + count))
            first += count
        self._path: list[list[int] | None] = [None] * tree.num_nodes
        self._path[0] = []

    def to(self, node: int) -> list[int]:
        """Return the contents of the full blocks of the prefix that ends at ``node``."""
        path = self._path[node]
        if path is None:
            chain = [node]
            while self._path[self._parent[chain[-1]]] is None:
                chain.append(self._parent[chain[-1]])
            for v in reversed(chain):
                above = self._path[self._parent[v]]
                assert above is not None
                path = self._path[v] = above + list(self._own_keys[v])
            assert path is not None
        return path


class BlockCache:
    """See `bssim.sim.engine.kv_cache.KVCache`. `capacity` excludes vLLM's null block."""

    def __init__(self, paths: BlockPaths, capacity: int, *, caching: bool, retain: bool) -> None:
        """``caching``: whether prompts can be found again; ``retain``: also without a holder."""
        self.block_size = paths.block_size
        self.capacity = capacity
        self.free = capacity
        self._empty = capacity
        self._caching = caching
        self._retain = retain
        self._node, self._path_to = paths.node, paths.to
        self._first: dict[_Key, int] = {}
        self._later: dict[_Key, list[int]] = {}
        self._ref: list[int] = []
        self._key: list[_Key] = []
        self._unused_ids: list[int] = []
        # Oldest first: a block id -> 1, or -1-request -> blocks that cannot be found again, of that
        # finished request and of those that finished after it, up to the next entry.
        self._queue: OrderedDict[int, int] = OrderedDict()
        self._waste = 0
        """Key of such a run if it is the youngest entry of all, else 0."""
        self._held: dict[int, list[int]] = {}

    def _lookup(self, request: int, num_tokens: int) -> list[int]:
        limit = (num_tokens - 1) // self.block_size
        first = self._first
        found: list[int] = []
        path = self._path_to(self._node[request])
        for key in path if len(path) <= limit else path[:limit]:
            block = first.get(key)
            if block is None:
                return found
            found.append(block)
        for k in range(len(path), limit):
            block = first.get((request, k))
            if block is None:
                break
            found.append(block)
        return found

    def match(self, request: int, num_tokens: int) -> tuple[int, int]:
        """See `KVCache.match`."""
        if not self._caching:
            return 0, 0
        found = self._lookup(request, num_tokens)
        ref = self._ref
        unheld = 0
        for block in found:
            if not ref[block]:
                unheld += 1
        return len(found) * self.block_size, unheld

    def admit(self, request: int, hit_tokens: int, target: int) -> None:
        """See `KVCache.admit`."""
        if self._caching:
            found = self._lookup(request, hit_tokens + 1)
            ref, queue = self._ref, self._queue
            for block in found:
                if not ref[block]:
                    del queue[block]
                    self.free -= 1
                ref[block] += 1
            self._held[request] = found
        self.grow(request, hit_tokens, target)

    def take(self, blocks: int) -> None:
        """See `KVCache.take`."""
        self.free -= blocks
        empty = self._empty - blocks
        if empty >= 0:
            self._empty = empty
            return
        self._empty = 0
        queue = self._queue
        need = -empty
        while need:
            key, count = queue.popitem(last=False)
            if key >= 0:
                self._forget(key)
            elif key == self._waste:
                self._waste = 0
            if count > need:  # the rest is evicted next in any case, like empty blocks
                self._empty = count - need
                return
            need -= count

    def _forget(self, block: int) -> None:
        key = self._key[block]
        later = self._later.get(key)
        if self._first[key] == block:
            if later:
                self._first[key] = later.pop(0)
            else:
                del self._first[key]
        elif later:
            later.remove(block)
        if later is not None and not later:
            del self._later[key]
        self._unused_ids.append(block)

    def _new_block(self, key: _Key, ref: int) -> int:
        if self._unused_ids:
            block = self._unused_ids.pop()
            self._ref[block] = ref
            self._key[block] = key
        else:
            block = len(self._ref)
            self._ref.append(ref)
            self._key.append(key)
        if key in self._first:
            self._later.setdefault(key, []).append(block)
        else:
            self._first[key] = block
        return block

    def grow(self, request: int, computed: int, target: int) -> None:
        """See `KVCache.grow`. As in vLLM, other requests can find full blocks from now on."""
        size = self.block_size
        self.take(-(-target // size) + (-computed // size))
        if not self._caching:
            return
        path = self._path_to(self._node[request])
        full = computed // size
        if full < len(path):
            held = self._held[request]
            for key in path[full : target // size]:
                held.append(self._new_block(key, 1))

    def release(
        self, request: int, computed: int, finished: bool, known: int | None = None
    ) -> None:
        """See `KVCache.release`. The last block enters the free queue first."""
        size = self.block_size
        total = -(-computed // size)
        self.free += total
        if not self._caching:
            self._empty += total
            return
        full = (computed if known is None else known) // size
        held = self._held.pop(request)
        self._empty += total - full
        own = full - len(held)
        queue, ref = self._queue, self._ref
        if not self._retain:
            self._empty += own
        elif finished:
            if own and self._waste:
                queue[self._waste] += own
            elif own:
                self._waste = -1 - request
                queue[self._waste] = own
        else:
            blocks = [self._new_block((request, k), 0) for k in range(len(held), full)]
            for block in reversed(blocks):
                queue[block] = 1
                self._waste = 0
        for block in reversed(held):
            ref[block] -= 1
            if ref[block]:
                self.free -= 1  # still held by another request
            elif self._retain:
                queue[block] = 1
                self._waste = 0
            else:
                self._empty += 1
                self._forget(block)

    def release_finished(self, requests: Collection[int], computed: Sequence[int]) -> None:
        """See `KVCache.release_finished`."""
        for r in requests:
            self.release(r, computed[r], True)

    def blocks_for(self, computed: int, target: int) -> int:
        """See `KVCache.blocks_for`."""
        return -(-target // self.block_size) + (-computed // self.block_size)
