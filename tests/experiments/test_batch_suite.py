"""The generated batch files: deterministic, within their caps, as varied as they say."""

import numpy as np
import pytest

from bssim.errors import InputError
from bssim.experiments.result_pages.batches.kinds import KINDS
from bssim.experiments.result_pages.batches.study import Batches
from bssim.experiments.result_pages.batches.suite import batch_lines, requests_of, workload_of


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_the_same_every_time_and_keeps_its_caps(kind: str) -> None:
    requests = requests_of(kind, 60, 1)
    assert list(batch_lines(requests)) == list(batch_lines(requests_of(kind, 60, 1)))
    assert list(batch_lines(requests)) != list(batch_lines(requests_of(kind, 60, 2)))
    pool = workload_of(kind, requests)
    assert len(pool) == 60
    assert pool.max_tokens is not None
    assert (pool.output_tokens <= pool.max_tokens).all()
    assert (pool.output_tokens >= 1).all()


def test_the_suite_spans_sharing_and_lengths() -> None:
    assert len(KINDS) == 12
    pools = [workload_of(kind, requests_of(kind, 80, 0)) for kind in KINDS]
    sharing = [pool.sharing_max for pool in pools]
    assert min(sharing) < 0.05
    assert max(sharing) > 0.8
    outputs = [np.mean(pool.output_tokens) for pool in pools]
    assert min(outputs) < 5
    assert max(outputs) > 1500


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"kind: found 'codes'.*did you mean 'code'"):
        requests_of("codes", 1, 0)


def test_the_chapter_measures_auto_and_ratio_against_the_better_order() -> None:
    study = Batches(("document_questions", "classification"), ("vllm",), num_requests=200, jobs=1)
    chapter = study.chapter({}, False)
    assert [claim.id for claim in chapter.claims] == ["batches.vllm.auto", "batches.vllm.ratio"]
    auto = chapter.claims[0]
    assert isinstance(auto.ours, float)
    assert auto.holds is (auto.ours <= 1.0)
    assert "document questions" in chapter.text
