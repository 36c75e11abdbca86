"""Numbers printed in the BlendServe paper (ASPLOS '26), by their place in it."""

TRACES = ("trace1", "trace2", "trace3", "trace4")

TABLE_3 = {
    "trace1": {1: 11080.0, 2: 20561.0, 4: 41928.0},
    "trace2": {1: 8408.0, 2: 16261.0, 4: 32537.0},
    "trace3": {1: 8403.0, 2: 15623.0, 4: 32026.0},
    "trace4": {1: 6325.0, 2: 12246.0, 4: 24541.0},
}
"""Tokens/s of BlendServe, Llama-3-8B, by trace and replicas."""

OVER_DFS_8B = (1.1934, 1.2265, 1.2084)
"""Speed-up over NanoFlow-DFS on the four traces: smallest, largest, mean."""
OVER_VLLM_DFS_MAX = 1.44
OVER_BALANCE_TRACES_1_2 = 1.36
BLENDSERVE_SHARE_8B = 0.8655
"""Share of the practical optimum, like the next three."""
DFS_SHARE_8B = 0.717
BLENDSERVE_SHARE_70B = 0.908
BLENDSERVE_SHARE_OTHERS = 0.899
OVER_DFS_70B = 1.186
OVER_DFS_OTHERS = (1.152, 1.244)
"""Mean and largest over the four other models."""
SHARING_BLENDSERVE = 0.97
"""Of the largest possible sharing: BlendServe has more, NanoFlow-Balance less than the next."""
SHARING_BALANCE = 0.30

GRID_DENSITIES = (0.80, 0.85, 0.90, 0.95, 1.00, 1.05, 1.10, 1.15, 1.20, 1.25, 1.30, 1.35, 1.40)
GRID_SHARINGS = (0.05, 0.15, 0.25, 0.35, 0.45)
FIGURE_11 = (
    (1.15, 1.15, 1.16, 1.16, 1.16),
    (1.14, 1.15, 1.15, 1.15, 1.15),
    (1.19, 1.19, 1.20, 1.21, 1.20),
    (1.16, 1.16, 1.17, 1.17, 1.17),
    (1.21, 1.22, 1.23, 1.24, 1.23),
    (1.25, 1.25, 1.26, 1.26, 1.25),
    (1.23, 1.23, 1.23, 1.24, 1.24),
    (1.25, 1.25, 1.26, 1.26, 1.26),
    (1.24, 1.25, 1.25, 1.25, 1.26),
    (1.23, 1.24, 1.24, 1.24, 1.24),
    (1.34, 1.34, 1.34, 1.34, 1.33),
    (1.23, 1.23, 1.23, 1.24, 1.24),
    (1.23, 1.23, 1.24, 1.24, 1.24),
)
"""Speed-up of BlendServe over NanoFlow-DFS: one row per density, one column per sharing."""
GRID_RANGES = {"fig13": (1.14, 1.31), "fig14": (1.08, 1.17), "fig15": (1.07, 1.16)}
"""Smallest and largest speed-up on the grids with another compute-intensive source."""
