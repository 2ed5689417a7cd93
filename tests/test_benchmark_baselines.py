"""The plain pipelines that the benchmarks compare with, and the scores' rooflines: are they right themselves?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark_house import StandIn

import proto_engine as pe

import baselines  # isort: skip
import baselines_array  # isort: skip
import baselines_batched  # isort: skip
import baselines_score  # isort: skip
import bench_score  # isort: skip
import checks  # isort: skip
import engines  # isort: skip
import parts  # isort: skip
import one_class  # isort: skip
import places  # isort: skip
import score_on_gpu  # isort: skip
import truth  # isort: skip


@pytest.fixture(scope="module")
def right():
    """A class of features, float64's truth about it, and eta."""
    x = one_class.OneClass({"m": 300, "dim": 24}, None, places.Host()).x
    peaks = pe.density_peaks(x, cutoff_quantile=checks.QUANTILE, backend="reference")
    return x, truth.SelectionTruth(x, checks.Selected(peaks.cutoff, peaks.rho)), peaks


@pytest.mark.parametrize("chunk_bytes", [64 * 2**20, 40_000], ids=["one chunk", "many chunks"])
def test_torch_baselines_agree_with_the_reference(right, chunk_bytes, monkeypatch):
    monkeypatch.setitem(baselines.CHUNK_BYTES, "cpu", chunk_bytes)
    x, selection, peaks = right
    for ways in (baselines.DENSE, baselines.CHUNKED):
        found = ways["select"](torch.from_numpy(x))
        selection.close(found, "select")
        assert found.rho.dtype == np.int64 and len(found.picks) == 8
        assert ways["density"](torch.from_numpy(x)).picks is None
        selection.close(ways["density"](torch.from_numpy(x)), "density")
        selection.close(ways["cutoff"](torch.from_numpy(x)), "cutoff")
        eta = ways["eta"](torch.from_numpy(x), torch.from_numpy(peaks.rho))
        np.testing.assert_allclose(eta, peaks.eta, atol=checks.tolerance(24))


def test_array_baselines_agree_with_the_reference(right):
    x, selection, peaks = right
    for stage in ("cutoff", "density", "select"):
        selection.close(getattr(baselines_array, stage)(np, x), stage)
    np.testing.assert_allclose(baselines_array.eta(np, x, peaks.rho), peaks.eta, atol=checks.tolerance(24))
    np.testing.assert_allclose(baselines_array.similarity(np, x), pe.similarity(x), atol=checks.tolerance(24))


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batched_baseline_agrees_with_the_reference(right, sort, dtype):
    x = torch.from_numpy(right[0]).to(dtype)
    both = baselines_batched.torch_batched(torch.stack([x, 2 * x.flip(0)]), sort=sort)
    for rows, found in zip((x, x.flip(0)), both, strict=True):
        peaks = pe.density_peaks(rows, cutoff_quantile=checks.QUANTILE, full_eta=False, backend="torch")
        truth.SelectionTruth(rows, checks.Selected(peaks.cutoff, peaks.rho.numpy())).close(found, "batched")


def test_torch_baselines_always_take_the_densest_row():
    x = torch.ones(20, 4) + 1e-4 * torch.arange(20)[:, None] * torch.eye(4)[0]  # all but equal rows
    for pipeline in (baselines.torch_dense, baselines.torch_chunked):
        found = pipeline(x)
        assert found.picks.tolist() == [int(found.rho.argmax())]
    (batched,) = baselines_batched.torch_batched(x[None], sort=True)
    assert batched.picks.tolist() == found.picks.tolist()


def test_compiled_baseline_runs_its_steps_or_is_unavailable(right, monkeypatch):
    x = torch.from_numpy(right[0])
    compiled = []

    def compile_step(step, dynamic):
        compiled.append(dynamic)
        return step

    baselines.compiled_steps.cache_clear()
    monkeypatch.setattr(torch, "compile", compile_step)
    right[1].close(baselines.torch_compiled(baselines.CHUNKED["select"], x), "compiled")
    assert compiled == [True, True, True]

    def no_compiler(*arguments):
        raise RuntimeError("no C compiler\nand much more")

    monkeypatch.setattr(baselines, "compiled_steps", lambda: baselines.Steps(no_compiler, no_compiler, no_compiler))
    with pytest.raises(parts.Unavailable, match=r"torch.compile: no C compiler$"):
        baselines.torch_compiled(baselines.CHUNKED["select"], x)


# scores


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    case = {"num_samples": 900, "dim": 16, "num_classes": 7}
    bench_score.prepare(case, folder)
    inputs = bench_score.Inputs(case, folder, places.Host())
    return inputs, truth.ScoreTruth(inputs.open(), inputs.prototypes.folded)


def reference(inputs):
    (engine,) = engines.host_engines(("reference",))
    return bench_score.correct(engine, inputs)


def test_score_truth_confirms_the_reference_and_the_baselines(scored, monkeypatch):
    inputs, right = scored
    monkeypatch.setitem(baselines_score.CHUNK_BYTES, "cpu", 16 * 4 * 100)  # 100 rows a chunk
    exact = reference(inputs)
    right.check(exact.labels, exact.score, exact.margin, exact=True, name="reference")
    for plain in (bench_score.plain_torch, bench_score.plain_numpy):
        rounded = plain(inputs)
        right.check(rounded.labels, rounded.score, rounded.margin, exact=False, name="plain")
        np.testing.assert_array_equal(rounded.changed, exact.changed)
        with pytest.raises(parts.CheckFailed, match="score is off"):
            right.check(rounded.labels, rounded.score, rounded.margin, exact=True, name="plain")


def test_score_truth_refuses_a_wrong_label(scored):
    inputs, right = scored
    exact = reference(inputs)
    labels = exact.labels.copy()
    labels[13] = (labels[13] + 1) % 7
    with pytest.raises(parts.CheckFailed, match=r"1 labels are wrong, first at rows \[13\]"):
        right.check(labels, exact.score, exact.margin, exact=True, name="wrong")


def test_score_rooflines_walk_over_the_whole_file(scored, monkeypatch):
    inputs, _ = scored
    monkeypatch.setattr(bench_score, "DEFAULT_CHUNK_BYTES", 16 * 4 * 250)
    check = bench_score.checker({}, inputs)
    products = [v for v in bench_score.variants({}, places.Host()) if v.role == "roofline"]
    assert {v.name for v in products} == {"torch.mm", "numpy.matmul", "numpy.copyto"}
    for v in products:
        result = v.call(inputs)
        assert len(result) == 900 % 250
        check(v, result)
        with pytest.raises(parts.CheckFailed):
            check(v, result + 1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_score_check_on_a_device_refuses_wrong_results(dtype):
    case = {"num_samples": 500, "dim": 24, "num_classes": 5, "dtype": dtype}
    place = StandIn()
    inputs = score_on_gpu.Inputs(case, None, place)
    check = score_on_gpu.checker(case, inputs)
    of = {(v.name, v.task): v for v in score_on_gpu.variants(case, place)}
    ours = of["torch", score_on_gpu.CORRECT]
    found = ours.call(inputs)
    check(ours, found)
    found.changed[3] = ~found.changed[3]
    with pytest.raises(parts.CheckFailed, match="changed is not"):
        check(ours, found)
    product = of["torch.mm", score_on_gpu.PRODUCT]
    out = product.call(inputs)
    check(product, out)
    with pytest.raises(parts.CheckFailed, match="a product is off"):
        check(product, out + 1)
    assert inputs.pinned_array.ctypes.data == inputs.pinned.data_ptr()  # the memory that is pinned, not a copy
    assert of["torch copy", score_on_gpu.COPY].work["bytes"] == 2 * bench_score.work(case)["bytes"]
    assert of["torch copy", score_on_gpu.TO_DEVICE].work["bytes"] == bench_score.work(case)["bytes"]
