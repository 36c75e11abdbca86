"""What one GPU of a tensor-parallel group holds of a model."""

from dataclasses import dataclass

from bssim.cost_models.llm.attention import AttentionGroup
from bssim.cost_models.llm.spec import LLMSpec
from bssim.errors import InputError


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of ``llm`` on one of ``tp`` GPUs, which split its heads and matrices evenly.

    KV heads are split too, and copied if there are more GPUs than heads. An MLA latent is never
    split. Raises InputError if ``tp`` GPUs cannot split the attention heads evenly.
    """

    llm: LLMSpec
    tp: int = 1

    def __post_init__(self) -> None:
        """Refuse a number of GPUs that cannot split the model."""
        llm, tp = self.llm, self.tp
        for group in llm.attention_groups:
            heads, kv_heads = group.num_heads, group.num_kv_heads
            if tp < 1 or heads % tp:
                raise InputError(
                    "tp", tp, f"a divisor of the {heads} attention heads of {llm.name}"
                )
            if not llm.is_mla and kv_heads % tp and tp % kv_heads:
                raise InputError(
                    "tp", tp, f"a divisor or a multiple of the {kv_heads} KV heads of {llm.name}"
                )

    @property
    def heads(self) -> int:
        """Query heads of the model's own shape of attention."""
        return self.llm.num_attention_heads // self.tp

    @property
    def kv_heads(self) -> int:
        """KV heads of the model's own shape of attention."""
        return self.llm.num_kv_heads // self.kv_shards

    @property
    def kv_shards(self) -> int:
        """Over how many GPUs the KV of every layer is split, at least."""
        return min(self.group_kv_shards(group) for group in self.llm.attention_groups)

    def group_kv_shards(self, group: AttentionGroup) -> int:
        """Return over how many GPUs the KV of ``group`` is split."""
        return 1 if self.llm.is_mla else group.kv_shards(self.tp)

    def group_kv_bytes(self, group: AttentionGroup) -> float:
        """Return the KV cache bytes per token in all layers of ``group``."""
        return self.llm.group_kv_bytes(group) / self.group_kv_shards(group)

    def group_prefill_flops(self, group: AttentionGroup) -> float:
        """Return the attention FLOPs of ``group`` per (query, key) pair of a prefill."""
        return self.llm.group_prefill_flops(group) / self.tp

    def group_decode_flops(self, group: AttentionGroup) -> float:
        """Return the attention FLOPs of ``group`` for one query and one KV token of a decode."""
        return self.llm.group_decode_flops(group) / self.tp

    def width(self, size: int) -> int:
        """Return the columns of a matrix that is ``size`` wide; the last GPU may have fewer."""
        return -(-size // self.tp)
