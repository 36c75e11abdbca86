"""The parameters, FLOPs and bytes of a language model, computed from its shapes."""

from dataclasses import dataclass, fields

from bssim.cost_models.llm.attention import AttentionGroup
from bssim.cost_models.llm.precision import BFLOAT16, Precision
from bssim.errors import InputError


@dataclass(frozen=True, slots=True)
class LLMSpec:
    """Shapes and precision of a decoder-only transformer.

    Grouped-query attention includes MHA (``num_kv_heads == num_attention_heads``) and MQA
    (``num_kv_heads == 1``). ``kv_lora_rank`` turns MLA on; ``head_dim`` and ``num_kv_heads`` are
    then unused. ``num_experts`` makes all layers MoE except ``num_dense_layers`` of them. Every
    layer has full attention of the same shape unless ``attention_layers`` is set.
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
    max_position_embeddings: int = 0
    """Longest context, prompt and output, in tokens; 0: unknown."""
    tie_word_embeddings: bool = False
    gated_mlp: bool = True
    """True: gate, up and down projections; False: up and down."""
    attention_bias: bool = False
    """Q, K and V projections have biases (parameters only; their FLOPs are not counted)."""
    attention_output_bias: bool = False
    """The output projection has a bias."""
    mlp_bias: bool = False
    """The matrices of every MLP, experts included, have biases."""
    qk_norm: bool = False
    """Each Q and K head is normalised (parameters only)."""
    qk_norm_all_heads: bool = False
    """Q and K are normalised over all heads at once, with a weight per element."""
    norms_per_layer: int = 2
    """2; 1 if attention and MLP share a norm; 4 with another norm after each of them."""
    norm_bias: bool = False
    """Norms are LayerNorms with a bias, not RMSNorms."""
    logit_softcap: bool = False
    """Logits pass through a scaled tanh before sampling (Gemma 2)."""
    position_embeddings: int = 0
    """Rows of a learned position table; 0 with rotary positions."""
    q_lora_rank: int = 0
    """MLA: rank of the query projection; 0: a single dense projection."""
    kv_lora_rank: int = 0
    """MLA: width of the cached latent; 0: no MLA."""
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    num_experts: int = 0
    """Routed experts per MoE layer; 0: dense model."""
    experts_per_token: int = 0
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    """Total width of the experts that every token uses; 0: none."""
    num_dense_layers: int = 0
    """Layers with a dense MLP in an MoE model."""
    attention_layers: tuple[AttentionGroup, ...] = ()
    """Layers by kind and shape of attention; empty: all have full attention of the shape above."""
    precision: Precision = BFLOAT16
    source: str = ""
    """Where the shapes come from."""
    notes: tuple[str, ...] = ()
    """Parts of the model that the cost models leave out, and other facts for the user."""

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
        )
        for field in positive:
            if getattr(self, field) < 1:
                raise InputError(f"{self.name}: {field}", repr(getattr(self, field)), "at least 1")
        for size in fields(self):
            value = getattr(self, size.name)
            if size.type in (int, "int") and value < 0:
                raise InputError(f"{self.name}: {size.name}", repr(value), "at least 0")
        if self.num_attention_heads % self.num_kv_heads:
            raise InputError(
                f"{self.name}: num_kv_heads",
                self.num_kv_heads,
                f"a divisor of num_attention_heads ({self.num_attention_heads})",
            )
        if self.is_moe and not (
            1 <= self.experts_per_token <= self.num_experts
            and self.moe_intermediate_size >= 1
            and 0 <= self.num_dense_layers <= self.num_layers
        ):
            raise InputError(
                self.name,
                (
                    f"num_experts {self.num_experts}, experts_per_token {self.experts_per_token}, "
                    f"moe_intermediate_size {self.moe_intermediate_size}, num_dense_layers "
                    f"{self.num_dense_layers}"
                ),
                (
                    "1 <= experts_per_token <= num_experts, moe_intermediate_size >= 1 and "
                    "num_dense_layers <= num_layers"
                ),
            )
        if self.attention_layers and (
            self.is_mla or sum(g.layers for g in self.attention_layers) != self.num_layers
        ):
            raise InputError(
                f"{self.name}: attention_layers",
                f"groups of {sum(g.layers for g in self.attention_layers)} layers",
                f"groups that add up to num_layers ({self.num_layers}), and none with MLA",
            )
        if len({(g.kind, g.window) for g in self.attention_layers if g.window}) > 1:
            raise InputError(
                f"{self.name}: attention_layers",
                "windows of several sizes or kinds",
                "one, because the work of a step is summed for one window",
            )
        if self.is_mla and min(self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim) < 1:
            raise InputError.saying(
                self.name,
                "kv_lora_rank is set",
                "qk_nope_head_dim, qk_rope_head_dim and v_head_dim of at least 1 too",
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
    def attention_groups(self) -> tuple[AttentionGroup, ...]:
        """All layers, grouped by kind and shape of their attention.

        An MLA model is one group with full attention, whose `head_dim` and KV heads are unused.
        """
        return self.attention_layers or (
            AttentionGroup(
                layers=self.num_layers,
                num_heads=self.num_attention_heads,
                num_kv_heads=self.num_kv_heads,
                head_dim=self.head_dim,
            ),
        )

    @property
    def windowed(self) -> AttentionGroup | None:
        """The first group with a window; None if every layer sees the whole context.

        All groups with a window have the same kind and size.
        """
        return next((group for group in self.attention_groups if group.window), None)

    @property
    def dtype_bytes(self) -> int:
        """Bytes per activation, and per weight that is not quantised."""
        return self.precision.activation_bytes

    @property
    def kv_dtype_bytes(self) -> int:
        """Bytes per KV cache element."""
        return self.precision.kv_bytes

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
        """Elements of K (or V) per token in a layer: the paper's Hkv = KV heads x head dim."""
        return self.num_kv_heads * self.head_dim

    @property
    def num_moe_layers(self) -> int:
        """Number of layers whose MLP is a mixture of experts."""
        return self.num_layers - self.num_dense_layers if self.is_moe else 0

    @property
    def mlp_matrices(self) -> int:
        """Weight matrices per MLP: 3 if gated, else 2."""
        return 3 if self.gated_mlp else 2

    @property
    def expert_params(self) -> int:
        """Parameters of one routed expert in one layer."""
        return self.mlp_matrices * self.hidden_size * self.moe_intermediate_size

    @property
    def qkv_proj_params(self) -> int:
        """Weights of the projections before attention in all layers (with MLA, down and up)."""
        if not self.is_mla:
            return sum(
                group.layers * self.hidden_size * (group.num_heads * group.head_dim)
                + group.layers * self.hidden_size * 2 * group.kv_size
                for group in self.attention_groups
            )
        qk_dim = self.qk_nope_head_dim + self.qk_rope_head_dim
        heads = self.num_attention_heads
        query = (
            self.q_lora_rank * (self.hidden_size + heads * qk_dim)
            if self.q_lora_rank
            else self.hidden_size * heads * qk_dim
        )
        latent = self.hidden_size * (self.kv_lora_rank + self.qk_rope_head_dim)
        expand = self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
        return self.num_layers * (query + latent + expand)

    @property
    def o_proj_params(self) -> int:
        """Weights of the output projections in all layers."""
        if self.is_mla:
            return self.num_layers * self.num_attention_heads * self.v_head_dim * self.hidden_size
        return sum(
            group.layers * group.num_heads * group.head_dim * self.hidden_size
            for group in self.attention_groups
        )

    @property
    def dense_mlp_params(self) -> int:
        """Weights of one dense MLP."""
        return self.mlp_matrices * self.hidden_size * self.intermediate_size

    @property
    def shared_expert_params(self) -> int:
        """Weights of the shared experts in one MoE layer."""
        return self.mlp_matrices * self.hidden_size * self.shared_expert_intermediate_size

    @property
    def router_params(self) -> int:
        """Weights of the router in one MoE layer."""
        return self.hidden_size * self.num_experts

    @property
    def lm_head_params(self) -> int:
        """Weights of the LM head, tied or not."""
        return self.vocab_size * self.hidden_size

    def matrix_params(self, experts: int) -> dict[str, int]:
        """Return the weights of all layers by kind of matrix (`precision.LINEARS`).

        Each MoE layer counts ``experts`` routed experts.
        """
        moe = self.num_moe_layers
        return {
            "qkv_proj": self.qkv_proj_params,
            "o_proj": self.o_proj_params,
            "mlp": (self.num_layers - moe) * self.dense_mlp_params,
            "shared_expert": moe * self.shared_expert_params,
            "experts": moe * experts * self.expert_params,
            "router": moe * self.router_params,
            "lm_head": self.lm_head_params,
        }

    def used_weights_by_format(self) -> dict[str, int]:
        """Return the weights that one token passes, by the format in which they multiply."""
        found: dict[str, int] = {}
        for kind, elements in self.matrix_params(self.experts_per_token).items():
            if elements:
                name = self.precision.gemm_format(kind)
                found[name] = found.get(name, 0) + elements
        return found

    def _small_params(self, experts: int) -> int:
        """Norms, biases, sinks and position tables."""
        norm = self.hidden_size * (2 if self.norm_bias else 1)
        found = norm * (self.num_layers * self.norms_per_layer + 1)
        found += self.position_embeddings * self.hidden_size
        for group in self.attention_groups:
            query, kv = group.num_heads * group.head_dim, group.kv_size
            per_layer = group.num_heads if group.sinks else 0
            if self.attention_bias:
                per_layer += query + 2 * kv
            if self.attention_output_bias:
                per_layer += self.hidden_size
            if self.qk_norm:
                per_layer += 2 * group.head_dim
            if self.qk_norm_all_heads:
                per_layer += query + kv
            if self.is_mla:
                per_layer += self.q_lora_rank + self.kv_lora_rank
            found += group.layers * per_layer
        if self.mlp_bias:
            up = self.mlp_matrices - 1
            moe, dense = self.num_moe_layers, self.num_layers - self.num_moe_layers
            found += dense * (up * self.intermediate_size + self.hidden_size)
            found += moe * experts * (up * self.moe_intermediate_size + self.hidden_size)
        return found

    def _params(self, experts: int) -> int:
        """Return the parameters; each MoE layer counts ``experts`` routed experts."""
        table = 0 if self.tie_word_embeddings else self.lm_head_params
        return sum(self.matrix_params(experts).values()) + table + self._small_params(experts)

    @property
    def num_params(self) -> int:
        """All parameters, including embeddings: the paper's P."""
        return self._params(self.num_experts)

    @property
    def num_active_params(self) -> int:
        """Parameters that one token uses, including embeddings; in a dense model, all of them."""
        return self._params(self.experts_per_token)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, each at its own precision."""
        size = self.dtype_bytes
        saved = sum(
            elements * (size - self.precision.weight_bytes(kind))
            for kind, elements in self.matrix_params(self.num_experts).items()
        )
        return self.num_params * size - round(saved)

    def group_kv_bytes(self, group: AttentionGroup) -> int:
        """Return the KV cache bytes per token in all layers of ``group``, on one GPU."""
        width = self.kv_lora_rank + self.qk_rope_head_dim if self.is_mla else 2 * group.kv_size
        return group.layers * width * self.kv_dtype_bytes

    @property
    def kv_bytes_per_token_layer(self) -> int:
        """KV cache bytes per token in one layer of the first group, on one GPU."""
        group = self.attention_groups[0]
        return self.group_kv_bytes(group) // group.layers

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache bytes of a token that all layers hold, on one GPU."""
        return sum(self.group_kv_bytes(group) for group in self.attention_groups)

    def group_prefill_flops(self, group: AttentionGroup) -> int:
        """Return the attention FLOPs of ``group`` per (query, key) pair of a prefill.

        For prefill, MLA expands the latent into full heads, as vLLM does.
        """
        dims = 2 * group.head_dim
        if self.is_mla:
            dims = self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim
        return 2 * group.layers * group.num_heads * dims

    @property
    def prefill_flops_per_pair(self) -> int:
        """Attention FLOPs per (query, key) pair of a prefill that every layer sees."""
        return sum(self.group_prefill_flops(group) for group in self.attention_groups)

    def group_decode_flops(self, group: AttentionGroup) -> int:
        """Return the attention FLOPs of ``group`` for one query and one KV token of a decode.

        For decode, MLA uses the latent itself, and every head reads all of it (absorbed weights).
        """
        dims = 2 * group.head_dim
        if self.is_mla:
            dims = 2 * self.kv_lora_rank + self.qk_rope_head_dim
        return 2 * group.layers * group.num_heads * dims
