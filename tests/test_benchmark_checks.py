"""What the benchmarks hold results against: truths in float64, rooflines, and which result is held against what."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from benchmark_house import StandIn, variant

import proto_engine as pe

import bench_engine  # isort: skip
import bench_eta  # isort: skip
import bench_similarity  # isort: skip
import checks  # isort: skip
import engines  # isort: skip
import parts  # isort: skip
import one_class  # isort: skip
import places  # isort: skip
import products  # isort: skip
import truth  # isort: skip


@pytest.fixture(scope="module")
def chosen():
    """A class of features and what the float64 reference says of it."""
    x = one_class.OneClass({"m": 300, "dim": 24}, None, places.Host()).x
    x[7] = x[3]  # a duplicate row
    peaks = pe.density_peaks(x, cutoff_quantile=checks.QUANTILE, backend="reference", full_eta=False)
    picks = pe.select_prototypes(x, np.zeros(300, dtype=int), samples_per_class=None, backend="reference").indices[0]
    return x, checks.Selected(peaks.cutoff, peaks.rho, picks)


@pytest.fixture(params=["all rows", "a sample"])
def counted(request, monkeypatch):
    """Densities of all rows are counted, or as in a large class of a sample only."""
    if request.param == "a sample":
        monkeypatch.setattr(truth, "ALL_ROWS", 100)
        monkeypatch.setattr(truth, "SAMPLED_ROWS", 150)
    return request.param


def test_selection_truth_confirms_the_reference(chosen, counted):
    x, reference = chosen
    right = truth.SelectionTruth(x, reference)
    assert right.picks.tolist() == reference.picks.tolist()
    right.same(reference, "reference")


def test_selection_truth_counts_densities_that_nobody_claims(chosen):
    x, reference = chosen
    right = truth.SelectionTruth(torch.from_numpy(x), dataclasses.replace(reference, rho=None))
    np.testing.assert_array_equal(right.rho, reference.rho)


def test_selection_truth_refuses_a_wrong_claim(chosen):
    x, reference = chosen
    with pytest.raises(parts.CheckFailed, match="wanted rank"):
        truth.SelectionTruth(x, dataclasses.replace(reference, cutoff=reference.cutoff + 1e-6))
    wrong = reference.rho.copy()
    wrong[11] += 2
    with pytest.raises(parts.CheckFailed, match="1 of 300 rows"):
        truth.SelectionTruth(x, dataclasses.replace(reference, rho=wrong))


def test_selection_truth_of_a_sample_refuses_a_wrong_claim(chosen, monkeypatch):
    monkeypatch.setattr(truth, "ALL_ROWS", 100)
    monkeypatch.setattr(truth, "SAMPLED_ROWS", 150)
    x, reference = chosen
    far = pe.density_peaks(x, cutoff_quantile=0.7, full_eta=False)  # consistent, of another rank
    with pytest.raises(parts.CheckFailed, match="wanted rank"):
        truth.SelectionTruth(x, checks.Selected(far.cutoff, far.rho))
    with pytest.raises(parts.CheckFailed, match="are not what float64 counts"):
        truth.SelectionTruth(x, dataclasses.replace(reference, rho=reference.rho[::-1].copy()))
    with pytest.raises(parts.CheckFailed, match="needs densities"):
        truth.SelectionTruth(x, dataclasses.replace(reference, rho=None))


def test_selection_truth_tells_exact_close_and_wrong_apart(chosen):
    x, reference = chosen
    right = truth.SelectionTruth(x, reference)
    rounded = dataclasses.replace(reference, cutoff=float(np.float32(reference.cutoff)))
    right.close(rounded, "rounded")
    with pytest.raises(parts.CheckFailed, match="rounded: cutoff"):
        right.same(rounded, "rounded")
    with pytest.raises(parts.CheckFailed, match="cutoff off by"):
        right.close(dataclasses.replace(reference, cutoff=reference.cutoff + 1e-3), "far")
    rho = reference.rho.copy()
    rho[5] += 100
    with pytest.raises(parts.CheckFailed, match="densities of 1 rows"):
        right.close(dataclasses.replace(reference, rho=rho), "rho")
    picks = reference.picks.copy()
    picks[-1] = np.argmin(reference.rho)
    for judge in (right.same, right.close):
        with pytest.raises(parts.CheckFailed, match="pick"):
            judge(dataclasses.replace(reference, picks=picks), "picks")
    with pytest.raises(parts.CheckFailed, match="7 picks, 8 wanted"):
        right.close(dataclasses.replace(reference, picks=picks[:-1]), "few")


def test_eta_truth_confirms_the_reference_and_refuses_others(chosen):
    x, reference = chosen
    right = truth.EtaTruth(x, reference.rho)
    eta = pe.density_peaks(x, cutoff_quantile=checks.QUANTILE, backend="reference").eta
    right.check(eta, exact=True, name="reference")
    right.check(eta.astype(np.float32), exact=False, name="rounded")
    with pytest.raises(parts.CheckFailed, match="rounded: an eta is off"):
        right.check(eta.astype(np.float32), exact=True, name="rounded")


# rooflines


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_product_check_takes_rounding_and_nothing_else(dtype, monkeypatch):
    inputs = one_class.OneClass({"m": 150, "dim": 40, "dtype": dtype}, None, StandIn())
    whole = products.multiply_torch(inputs)
    products.check_product(inputs.x, whole, rounds=False)
    monkeypatch.setattr(products, "_CHUNK_BYTES", 40 * 150 * inputs.x.element_size())
    last = products.multiply_chunks(inputs)
    assert (last.start, tuple(last.s.shape)) == (120, (30, 150))
    assert torch.equal(last.s, whole.s[120:]) or dtype != "float32"
    products.check_product(inputs.x, last, rounds=False)
    with pytest.raises(parts.CheckFailed, match="a product is off"):
        products.check_product(inputs.x, products.Piece(0, last.s), rounds=False)
    last.s[3, 5] = 0
    with pytest.raises(parts.CheckFailed, match="a product is off"):
        products.check_product(inputs.x, last, rounds=True)
    assert products.copy_bank(inputs) is inputs.copy
    products.check_copy(inputs.x, inputs.copy)
    inputs.copy[2, 3] += 1
    with pytest.raises(parts.CheckFailed, match="not the bank"):
        products.check_copy(inputs.x, inputs.copy)


def test_rooflines_multiply_in_chunks_where_the_product_does_not_fit():
    case = {"m": 71000, "dim": 2048, "dtype": "float16"}
    whole, copy = products.gpu_rooflines(case, StandIn(room=2**36))
    chunks, _ = products.gpu_rooflines(case, StandIn(room=2**34))
    assert whole.call is products.multiply_torch and whole.needs_bytes == 2 * 71000**2
    assert chunks.call is products.multiply_chunks and chunks.needs_bytes <= 2**31
    assert copy.work == {"flops": None, "bytes": 2.0 * 2 * 71000 * 2048}
    single = products.gpu_rooflines({**case, "m": 1280, "dtype": "float32"}, StandIn())
    assert [v.name for v in single] == ["torch.mm", "torch.mm TF32", "torch copy"]


# which result is held against what


def test_selection_check_without_the_host_starts_from_the_first_right_result(chosen, monkeypatch):
    x, reference = chosen
    monkeypatch.setattr(one_class, "HOST_ROWS", 10)
    check = one_class.SelectionCheck(torch.from_numpy(x))
    wrong = dataclasses.replace(reference, cutoff=reference.cutoff + 1e-4)
    with pytest.raises(parts.CheckFailed, match="wanted rank"):
        check.ours(wrong, "wrong")
    check.ours(dataclasses.replace(reference, picks=None), "first")
    check.ours(reference, "second")
    with pytest.raises(parts.CheckFailed, match="wrong: cutoff"):
        check.ours(wrong, "wrong")
    check.baseline(dataclasses.replace(reference, cutoff=float(np.float32(reference.cutoff))), "baseline")


def test_selection_check_of_baselines_alone_starts_from_float64(chosen, monkeypatch):
    x, reference = chosen
    monkeypatch.setattr(one_class, "HOST_ROWS", 10)
    check = one_class.SelectionCheck(torch.from_numpy(x))
    check.baseline(reference, "baseline")
    assert check.truth.cutoff == pytest.approx(reference.cutoff, abs=1e-12)


def test_selection_check_asks_for_densities_of_a_large_class(chosen, monkeypatch):
    x, reference = chosen
    monkeypatch.setattr(one_class, "HOST_ROWS", 10)
    monkeypatch.setattr(truth, "ALL_ROWS", 100)
    check = one_class.SelectionCheck(torch.from_numpy(x))
    claim = one_class.densities_of("torch", torch.from_numpy(x))
    check.ours(dataclasses.replace(reference, rho=None), "ours", claim)
    np.testing.assert_array_equal(check.truth.rho, reference.rho)


def test_similarity_check_refuses_what_is_not_symmetric_ones(chosen):
    x, _ = chosen
    s = pe.similarity(x)
    ours = variant("ours")
    bench_similarity.check_similarity(x, s, ours)
    bench_similarity.check_similarity(torch.from_numpy(x), torch.from_numpy(s.copy()), ours)
    s[4, 4] = np.nextafter(np.float32(1), np.float32(0))
    with pytest.raises(parts.CheckFailed, match="diagonal"):
        bench_similarity.check_similarity(x, s, ours)
    s[3, 9] += 1e-3
    with pytest.raises(parts.CheckFailed, match="a similarity is off"):
        bench_similarity.check_similarity(x, s, ours)
    with pytest.raises(parts.CheckFailed, match="wanted \\[300, 300\\]"):
        bench_similarity.check_similarity(x, s[:9], ours)


def test_eta_check_wants_the_same_bits_of_all_of_ours():
    inputs = one_class.OneClass({"m": 120, "dim": 16, "dtype": "float16"}, None, StandIn())
    check = bench_eta.checker({}, inputs)
    eta = bench_eta.ours(engines.gpu_engines(inputs.x.device, ("torch",))[0], inputs)
    check(variant("first"), eta)
    other = eta.clone()
    other[3] = np.nextafter(float(eta[3]), 2.0)
    with pytest.raises(parts.CheckFailed, match="other: other bits"):
        check(variant("other"), other)


def test_engine_check_refuses_another_pick_density_or_label():
    inputs = bench_engine.Inputs({"num_classes": 3, "m": 90, "dim": 16}, None, places.Host())
    check = bench_engine.checker({}, inputs)
    (engine,) = engines.host_engines(("reference",))
    prototypes, corrections = bench_engine.whole(engine, inputs)
    check(variant("ours"), (prototypes, corrections))
    swapped = prototypes.indices.copy()
    swapped[2, [0, 1]] = swapped[2, [1, 0]]
    with pytest.raises(parts.CheckFailed, match="picks"):
        check(variant("ours"), dataclasses.replace(prototypes, indices=swapped))
    rho = prototypes.rho.copy()
    rho[1, 3] += 2
    with pytest.raises(parts.CheckFailed, match="class 1: densities of the picks"):
        check(variant("ours"), dataclasses.replace(prototypes, rho=rho))
    with pytest.raises(parts.CheckFailed, match="eta differs"):
        check(variant("ours"), dataclasses.replace(prototypes, eta=prototypes.eta + 1e-12))
    labels = corrections.labels.copy()
    labels[5] = (labels[5] + 1) % 3
    with pytest.raises(parts.CheckFailed, match="1 labels are wrong"):
        check(variant("ours"), (prototypes, dataclasses.replace(corrections, labels=labels)))


# our backends


def test_engines_name_what_they_leave_out(capsys):
    engines.gpu_engines.cache_clear()
    names = [e.name for e in engines.gpu_engines(torch.device("cpu"), ("torch", "no such", "reference"))]
    assert names == ["torch", "reference"]
    assert "no such left out: no backend has that name" in capsys.readouterr().err
    engines.gpu_engines.cache_clear()


def test_engines_leave_out_loops_that_must_not_run(monkeypatch, capsys):
    from proto_engine.backends.cuda import CudaBackend

    monkeypatch.setattr(engines, "_said", set())
    monkeypatch.setattr(engines, "why_not", lambda name: None)
    monkeypatch.setattr(CudaBackend, "compute_capability", lambda self, device: (9, 0))
    monkeypatch.setattr(engines.Engine, "call", lambda self, function, rows: None)
    monkeypatch.setenv("PROTO_ENGINE_WITHOUT_LOOPS", "simt,wgmma")
    engines.gpu_engines.cache_clear()
    names = [e.name for e in engines.gpu_engines(torch.device("cpu"), ("cuda",))]
    assert names == ["cuda", "cuda mma", "cuda wgmma-cluster"]
    assert "cuda wgmma left out: the tile loops to run here are mma, wgmma-cluster\n" in capsys.readouterr().err
    engines.gpu_engines.cache_clear()


@pytest.mark.parametrize(
    ("capability", "without", "names"),
    [
        ((9, 0), "", ["cuda blocks", "cuda clusters"]),
        ((9, 0), "score-cluster", ["cuda blocks"]),
        ((8, 0), "", ["cuda blocks"]),
    ],
)
def test_both_kernels_of_the_scores_are_timed_where_there_are_both(monkeypatch, capsys, capability, without, names):
    from proto_engine.backends.cuda import CudaBackend

    monkeypatch.setattr(engines, "_said", set())
    monkeypatch.setattr(engines, "why_not", lambda name: None)
    monkeypatch.setattr(CudaBackend, "compute_capability", lambda self, device: capability)
    monkeypatch.setattr(engines.Engine, "call", lambda self, function, rows: None)
    monkeypatch.setenv("PROTO_ENGINE_WITHOUT_LOOPS", without)
    engines.score_kernels.cache_clear()
    found = engines.score_kernels(torch.device("cpu"))
    assert [engine.name for engine in found] == names
    assert [engine.instance._clusters for engine in found] == [False, True][: len(names)]
    assert ("cuda clusters left out: there are no clusters" in capsys.readouterr().err) == (len(names) == 1)
    engines.score_kernels.cache_clear()


def test_engines_say_once_what_is_not_installed(capsys):
    assert engines.installed("numpy", "numpy dense")
    for _ in range(2):
        assert not engines.installed("no_such_module", "a baseline")
    assert capsys.readouterr().err == "a baseline left out: the module no_such_module is not installed\n"


def test_engine_of_an_instance_stands_in_for_its_name():
    from proto_engine.backends.reference import ReferenceBackend

    seen = []

    class Watched(ReferenceBackend):
        def normalize(self, rows, squares):
            seen.append(len(rows))
            return super().normalize(rows, squares)

    x = np.ones((3, 2), dtype=np.float32)
    pe.ops.normalize(x, backend="cpu")
    engine = engines.Engine("watched", "cpu", instance=Watched())
    assert engine.call(pe.ops.normalize, x).dtype == np.float64
    pe.ops.normalize(x, backend="cpu")
    assert seen == [3]


def test_engines_leave_large_classes_to_the_fast_ones():
    of = {name: engines.Engine(name, name) for name in ("cuda", "torch", "numba-cuda")}
    assert [engines.fits(engine, 10**6) for engine in of.values()] == [True, False, False]
    assert all(engines.fits(engine, 1280) for engine in of.values())
