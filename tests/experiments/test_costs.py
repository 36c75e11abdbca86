"""The `bssim costs` report."""

import json

import pytest

from bssim.errors import InputError
from bssim.experiments.costs import (
    costs_report,
    parse_group,
)
from bssim.experiments.plots import roofline_figure

MODEL, GPU = "llama-3-8b", "a100-80gb"


def test_report_is_json_and_sums() -> None:
    report = costs_report(MODEL, GPU, prefill="4x768", decode="96x700").as_dict()
    assert json.loads(json.dumps(report)) == report
    operators = {operator["name"]: operator for operator in report["operators"]}
    assert set(operators) == {
        "qkv_proj",
        "o_proj",
        "mlp",
        "lm_head",
        "prefill_attention",
        "decode_attention",
        "embedding",
        "norm",
        "rotary_embedding",
        "kv_write",
        "activation",
        "sampling",
    }
    assert report["step_s"] == pytest.approx(sum(o["seconds"] for o in operators.values()))
    assert report["memory_s"] == operators["decode_attention"]["seconds"]
    assert report["compute_s"] + report["memory_s"] == pytest.approx(report["step_s"])
    assert operators["mlp"]["bound"] == "compute"
    assert operators["decode_attention"]["bound"] == "memory"
    assert operators["lm_head"]["flops"] == 2 * 128256 * 4096 * 100
    assert operators["norm"]["bytes"] == 65 * 4 * 4096 * 2 * (4 * 768 + 96)
    measured = {"qkv_proj", "o_proj", "mlp", "lm_head", "prefill_attention", "decode_attention"}
    for name, operator in operators.items():
        known = "fitted to measurements" if name in measured else "assumed: 3 us and 0.8"
        assert operator["provenance"].startswith(known)


def test_context_is_the_kv_before_the_step() -> None:
    report = costs_report(MODEL, GPU, "paper", decode="10x100").as_dict()
    attention = next(o for o in report["operators"] if o["name"] == "decode_attention")
    assert attention["seconds"] == pytest.approx(10 * 100 * 131072 / 2.039e12)


def test_overlap_shortens_the_step_but_not_its_operators() -> None:
    step = {"prefill": "2x512", "decode": "96x700"}
    alone = costs_report(MODEL, GPU, **step).as_dict()
    together = costs_report(MODEL, GPU, **step, overlap="frontier").as_dict()
    assert together["step_s"] == alone["step_s"] == pytest.approx(alone["overlapped_s"])
    assert together["overlapped_s"] < alone["step_s"]


def test_tensor_parallel_report_has_communication() -> None:
    report = costs_report("llama-3-70b", "h100-sxm", decode="64x2048", tp=8).as_dict()
    names = {operator["name"]: operator for operator in report["operators"]}
    assert report["communication_s"] == pytest.approx(
        names["all_reduce"]["seconds"] + names["logits_gather"]["seconds"]
    )


def test_text_names_every_operator_and_source() -> None:
    report = costs_report(MODEL, GPU, prefill="1x2048", decode="8x512", overlap="perfect")
    text = report.as_text()
    for operator in report.operators:
        assert operator.name in text
        assert operator.provenance in text
    assert f"{1e3 * report.step_s:.3f}" in text
    last = text.splitlines()[-1]
    assert last.startswith(f"step: {1e3 * report.step_s:.3f} ms (")
    assert last.endswith(f"; {1e3 * report.overlapped_s:.3f} ms with perfect overlap")


def test_figure_draws_every_operator() -> None:
    figure = roofline_figure(costs_report(MODEL, GPU, prefill="1x2048", decode="8x512"))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(labels) == 6
    assert any(label.startswith("decode_attention") for label in labels)


@pytest.mark.parametrize("text", ["4", "4x", "x4", "0x5", "4x0", "4x-1", "four x 1"])
def test_bad_groups(text: str) -> None:
    with pytest.raises(InputError, match="--prefill: found"):
        parse_group("--prefill", text)


def test_a_step_of_nothing() -> None:
    with pytest.raises(InputError, match="found no work"):
        costs_report(MODEL, GPU)


PROOF_STEPS = (
    ("1x512", None),
    ("1x2048", None),
    ("1x4096", None),
    *((None, f"{batch}x{context}") for batch in (1, 64, 256) for context in (1024, 2048)),
    ("1x2048", "256x1024"),
)


@pytest.mark.parametrize("hardware", ["a100-80gb", "h100-sxm"])
def test_roofline_against_measured_tables(hardware: str) -> None:
    errors, step_errors = [], []
    for prefill, decode in PROOF_STEPS:
        ours, truth = (
            costs_report(MODEL, hardware, name, prefill=prefill, decode=decode)
            for name in ("roofline", "silicon")
        )
        measured = {operator.name: operator.seconds for operator in truth.operators}
        errors += [abs(o.seconds / measured[o.name] - 1) for o in ours.operators]
        step_errors.append(abs(ours.step_s / truth.step_s - 1))
    errors.sort()
    assert errors[len(errors) // 2] <= 0.05
    assert errors[-1] <= 0.15
    assert max(step_errors) <= 0.06


@pytest.mark.parametrize(
    ("cost_model", "provenance"),
    [
        ("roofline", "fitted to measurements: aiconfigurator-core"),
        ("paper", "spec sheet: NVIDIA, NVLink 4"),
        ("silicon", "measured: aiconfigurator-core"),
    ],
)
def test_several_gpus_pay_all_reduces_from_a_named_source(cost_model: str, provenance: str) -> None:
    report = costs_report("llama-3-70b", "h100-sxm", cost_model, decode="96x700", tp=8)
    (reduce,) = [o for o in report.as_dict()["operators"] if o["name"] == "all_reduce"]
    assert reduce["seconds"] > 0
    assert reduce["bound"] == "communication"
    assert reduce["provenance"].startswith(provenance)
