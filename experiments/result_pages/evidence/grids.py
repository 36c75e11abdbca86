"""The grids that compare ratio with blendserve, and the question of each."""

from bssim.experiments.result_pages.evidence.comparison import Comparison

GRID = Comparison(
    "ratio_grid",
    "The paper's figure 11 with `ratio`",
    ("ratio/grid.yaml",),
    "The whole grid of densities and sharings, `paper` cost model.",
    heat_map=True,
)
MIXES = Comparison(
    "ratio_mixes",
    "Other sources in place of BurstGPT (the paper's figures 13 to 15)",
    ("ratio/mixes.yaml",),
    "ShareGPT and WildChat have long answers, so one request computes and reads much at once. "
    "The paper gains least on them. `paper` cost model.",
)
TRACES = Comparison(
    "ratio_traces",
    "Real lengths",
    (
        "traces/azure.yaml",
        "traces/sharegpt.yaml",
        "traces/mmlu.yaml",
        "traces/mooncake.yaml",
    ),
    "The public traces of `configs/traces/` (`BSSIM_TRACES` names their folder), priced by "
    "`roofline`: Azure's code requests, ShareGPT chats and measured MMLU prompts, each mixed "
    "with long outputs, and Mooncake's conversations without a mix.",
)
GPUS = Comparison(
    "ratio_gpus",
    "Other GPUs",
    ("ratio/gpus.yaml",),
    "Llama-3-8B, priced by `roofline`, on GPUs with different bandwidth per FLOP and different "
    "room for KV.",
)
MODELS = Comparison(
    "ratio_models",
    "Other models",
    ("ratio/models.yaml", "ratio/large-models.yaml"),
    "Models with fewer KV heads (Qwen-2.5-7B), with one KV head per head (Llama-2-7B), and "
    "three large models on eight GPUs, where all-reduces run beside compute and memory; priced "
    "by `roofline`.",
)
STEP_COST = Comparison(
    "ratio_step_cost",
    "A fixed cost of every step",
    ("ratio/step-overhead.yaml",),
    "Every step pays 0 to 4 ms of host time that nothing hides, set in a hardware file "
    "(`fixed_s`). This makes few, full steps worth more.",
)
VLLM = Comparison(
    "ratio_vllm",
    "Stock vLLM: operators one after another",
    ("ratio/vllm.yaml",),
    "The step-exact `vllm` preset cannot overlap, so an order can improve only the weight "
    "loads, the prefix hits and the drain. Two sizes of the running batch (`max_num_seqs`), "
    "`roofline`, means of three seeds. Here `ratio` admits and paces at run time. `ratio_order`"
    " shows what its order alone is worth, replayed first come, first served.",
)
