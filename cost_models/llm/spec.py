"""What a language model costs to hold and to run: shapes in, parameters, FLOPs and bytes out."""

from dataclasses import dataclass

from bssim.errors import InputError


@dataclass(frozen=True, slots=True)
class LLMSpec:
    """Shapes of a decoder-only transformer with full attention in every layer.

    Grouped-query attention covers MHA (``num_kv_heads == num_attention_heads``) and MQA
    (``num_kv_heads == 1``). MLA is on when ``kv_lora_rank`` is set; then ``head_dim`` and
    ``num_kv_heads`` are not used. Layers are MoE when ``num_experts`` is set, except the first
    ``num_dense_layers``.
    """

    name: str
    hidden_size: int
    num_layers: int
    num_attention_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    """Width of a dense MLP."""
    vocab_size: int
    tie_word_embeddings: bool = False
    gated_mlp: bool = True
    """True: gate, up and down projections; False: up and down."""
    attention_bias: bool = False
    """Q, K and V projections have biases (parameters only; their FLOPs are not counted)."""
    qk_norm: bool = False
    """Q and K heads are normalised (parameters only)."""
    position_embeddings: int = 0
    """Rows of a learned position table; 0 with rotary positions."""
    q_lora_rank: int = 0
    """MLA: rank of the query projection; 0: one dense projection."""
    kv_lora_rank: int = 0
    """MLA: width of the cached latent; 0: no MLA."""
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    num_experts: int = 0
    """Routed experts of an MoE layer; 0: dense model."""
    experts_per_token: int = 0
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    """Total width of the experts that every token visits; 0: none."""
    num_dense_layers: int = 0
    """First layers that have a dense MLP in an MoE model."""
    dtype_bytes: int = 2
    """Bytes of a weight and of an activation."""
    kv_dtype_bytes: int = 2
    """Bytes of a KV cache element."""
    source: str = ""
    """Where the shapes come from."""
    notes: tuple[str, ...] = ()
    """What a reader of the spec found but the cost models leave out."""

    def __post_init__(self) -> None:
        """Refuse shapes that no model can have."""
        positive = (
            "hidden_size",
            "num_layers",
            "num_attention_heads",
            "num_kv_heads",
            "head_dim",
            "intermediate_size",
            "vocab_size",
            "dtype_bytes",
            "kv_dtype_bytes",
        )
        for field in positive:
            if getattr(self, field) < 1:
                raise InputError(
                    f"{self.name}: {field}: found {getattr(self, field)!r}; expected at least 1"
                )
        if self.num_attention_heads % self.num_kv_heads:
            raise InputError(
                f"{self.name}: num_kv_heads: found {self.num_kv_heads}; expected a divisor of "
                f"num_attention_heads ({self.num_attention_heads})"
            )
        if self.is_moe and not (
            1 <= self.experts_per_token <= self.num_experts
            and self.moe_intermediate_size >= 1
            and 0 <= self.num_dense_layers <= self.num_layers
        ):
            raise InputError(
                f"{self.name}: found num_experts {self.num_experts}, experts_per_token "
                f"{self.experts_per_token}, moe_intermediate_size {self.moe_intermediate_size}, "
                f"num_dense_layers {self.num_dense_layers}; expected 1 <= experts_per_token <= "
                f"num_experts, moe_intermediate_size >= 1 and num_dense_layers <= num_layers"
            )
        if self.is_mla and min(self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim) < 1:
            raise InputError(
                f"{self.name}: kv_lora_rank is set; expected qk_nope_head_dim, qk_rope_head_dim "
                "and v_head_dim of at least 1 beside it"
            )

    @property
    def is_moe(self) -> bool:
        """True if any layer routes tokens to experts."""
        return self.num_experts > 0

    @property
    def is_mla(self) -> bool:
        """True if the KV cache holds a compressed latent (multi-head latent attention)."""
        return self.kv_lora_rank > 0

    @property
    def attention(self) -> str:
        """``MHA``, ``GQA``, ``MQA`` or ``MLA``."""
        if self.is_mla:
            return "MLA"
        if self.num_kv_heads == self.num_attention_heads:
            return "MHA"
        return "MQA" if self.num_kv_heads == 1 else "GQA"

    @property
    def kv_size(self) -> int:
        """Elements of K (or V) of a token in a layer: the paper's Hkv = KV heads x head dim."""
        return self.num_kv_heads * self.head_dim

    @property
    def num_moe_layers(self) -> int:
        """Layers whose MLP is a mixture of experts."""
        return self.num_layers - self.num_dense_layers if self.is_moe else 0

    @property
    def mlp_matrices(self) -> int:
        """Weight matrices of an MLP: 3 if gated, else 2."""
        return 3 if self.gated_mlp else 2

    @property
    def expert_params(self) -> int:
        """Parameters of one routed expert of one layer."""
        return self.mlp_matrices * self.hidden_size * self.moe_intermediate_size

    @property
    def qkv_proj_params(self) -> int:
        """Weights of a layer's projections before attention (both MLA ranks, up and down)."""
        if not self.is_mla:
            return self.hidden_size * (self.num_attention_heads * self.head_dim + 2 * self.kv_size)
        qk_dim = self.qk_nope_head_dim + self.qk_rope_head_dim
        heads = self.num_attention_heads
        query = (
            self.q_lora_rank * (self.hidden_size + heads * qk_dim)
            if self.q_lora_rank
            else self.hidden_size * heads * qk_dim
        )
        latent = self.hidden_size * (self.kv_lora_rank + self.qk_rope_head_dim)
        expand = self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
        return query + latent + expand

    @property
    def o_proj_params(self) -> int:
        """Weights of a layer's output projection."""
        dim = self.v_head_dim if self.is_mla else self.head_dim
        return self.num_attention_heads * dim * self.hidden_size

    @property
    def dense_mlp_params(self) -> int:
        """Weights of a dense MLP."""
        return self.mlp_matrices * self.hidden_size * self.intermediate_size

    @property
    def shared_expert_params(self) -> int:
        """Weights of an MoE layer that every token uses, beside the router."""
        return self.mlp_matrices * self.hidden_size * self.shared_expert_intermediate_size

    @property
    def router_params(self) -> int:
        """Weights of an MoE layer's router."""
        return self.hidden_size * self.num_experts

    @property
    def lm_head_params(self) -> int:
        """Weights of the LM head, tied or not."""
        return self.vocab_size * self.hidden_size

    @property
    def _small_params(self) -> int:
        """Norms, biases and position tables: counted, never priced."""
        per_layer = 2 * self.hidden_size
        if self.attention_bias:
            per_layer += self.num_attention_heads * self.head_dim + 2 * self.kv_size
        if self.qk_norm:
            per_layer += 2 * self.head_dim
        if self.is_mla:
            per_layer += self.q_lora_rank + self.kv_lora_rank
        table = self.position_embeddings * self.hidden_size
        return self.num_layers * per_layer + self.hidden_size + table

    def _params(self, experts: int) -> int:
        """Return the parameters with ``experts`` routed experts counted in each MoE layer."""
        attention = self.num_layers * (self.qkv_proj_params + self.o_proj_params)
        dense = (self.num_layers - self.num_moe_layers) * self.dense_mlp_params
        moe = self.num_moe_layers * (
            experts * self.expert_params + self.shared_expert_params + self.router_params
        )
        embeddings = self.lm_head_params * (1 if self.tie_word_embeddings else 2)
        return attention + dense + moe + embeddings + self._small_params

    @property
    def num_params(self) -> int:
        """All parameters, embeddings included: the paper's P."""
        return self._params(self.num_experts)

    @property
    def num_active_params(self) -> int:
        """Parameters that one token uses, embeddings included; equal to all of a dense model."""
        return self._params(self.experts_per_token)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return self.num_params * self.dtype_bytes

    @property
    def kv_bytes_per_token_layer(self) -> int:
        """KV cache bytes of a token in one layer."""
        elements = self.kv_lora_rank + self.qk_rope_head_dim if self.is_mla else 2 * self.kv_size
        return elements * self.kv_dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache bytes of a token in all layers, on one GPU."""
        return self.num_layers * self.kv_bytes_per_token_layer

    @property
    def prefill_flops_per_pair(self) -> int:
        """Attention FLOPs of all layers for one (query, key) pair of a prefill.

        MLA expands the latent into full heads for prefill, as vLLM does.
        """
        if self.is_mla:
            dims = self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim
        else:
            dims = 2 * self.head_dim
        return 2 * self.num_layers * self.num_attention_heads * dims

    @property
    def decode_flops_per_context_token(self) -> int:
        """Attention FLOPs of all layers for one query against one KV token of a decode.

        MLA decodes on the latent itself: every head reads all of it (weights absorbed).
        """
        dims = 2 * self.kv_lora_rank + self.qk_rope_head_dim if self.is_mla else 2 * self.head_dim
        return 2 * self.num_layers * self.num_attention_heads * dims

    def kv_shards(self, tp: int) -> int:
        """Return over how many of ``tp`` GPUs the KV cache of a token is split.

        GPUs beyond the number of KV heads hold copies, and an MLA latent is never split.
        """
        return 1 if self.is_mla else min(tp, self.num_kv_heads)

    def check_tp(self, tp: int) -> None:
        """Raise InputError unless ``tp`` GPUs can split the attention heads evenly."""
        if tp < 1 or self.num_attention_heads % tp:
            raise InputError(
                f"tp: found {tp}; expected a divisor of the {self.num_attention_heads} attention "
                f"heads of {self.name}"
            )
        if not self.is_mla and self.num_kv_heads % tp and tp % self.num_kv_heads:
            raise InputError(
                f"tp: found {tp}; expected a divisor or a multiple of the {self.num_kv_heads} KV "
                f"heads of {self.name}"
            )
