"""What `make gpu-check` records: tile loops verified on a GPU, by sources, compute capability and commit."""

from __future__ import annotations

import json
import os

import pytest
from benchmark_house import ROOT
from fake_gpu import H100
from fake_gpu import context as context

import take_results  # isort: skip  from the folder that benchmark_house adds
import verified  # isort: skip
from gpu_check_context import FAILED, PASSED, Outcome  # isort: skip
from gpu_check_steps import record  # isort: skip
from rows import append_rows, read_rows  # isort: skip


def ended(loops_tested, loops_clean, planted=PASSED):
    return {
        "planted": Outcome(planted, ""),
        "tests": Outcome(PASSED, "", loops=loops_tested),
        "sanitizer": Outcome(PASSED, "", loops=loops_clean),
    }


def test_record_lists_loops_that_came_through_everything(context):
    context.before = ended(["cuda/simt", "cuda/mma"], ["cuda/mma", "cuda/wgmma"])
    outcome = record(context)
    assert (outcome.outcome, outcome.loops) == (PASSED, ["cuda/mma"])
    texts = [(context.root / place).read_text() for place in verified.PLACES]
    assert texts[0] == texts[1] == (context.out / "gpu_verified.json").read_text()
    (run,) = json.loads(texts[0])["runs"]
    assert run["verified"] == ["cuda/mma"] and run["compute_capability"] == "9.0" and run["driver"] == "580.159.04"
    assert run["sources"] == verified.sources_hash(context.root) and len(run["sources"]) == 64
    assert read_rows(context.out / "results.jsonl")[0]["bench"] == "gpu_check"


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ({}, "not run: tests, planted, sanitizer"),
        (ended(["cuda/simt"], ["cuda/simt"], planted=FAILED), "did not find what was planted"),
        (ended(["cuda/simt"], []), "no tile loop came through"),
        (ended(["cuda/simt"], ["cuda/mma"]), "no tile loop came through"),
    ],
)
def test_nothing_is_recorded_of_a_run_that_falls_short(context, before, why):
    context.before = before
    outcome = record(context)
    assert outcome.outcome == FAILED and why in outcome.detail
    assert not any((context.root / place).exists() for place in verified.PLACES)


def test_record_keeps_one_run_for_each_compute_capability(tmp_path):
    from proto_engine.backends import gpu_record

    for gpu, loops in ((H100, ["cuda/simt"]), (verified.Gpu("A100", "8.0", "1"), ["cuda/mma"]), (H100, ["cuda/wgmma"])):
        verified.write_record(gpu, loops, tmp_path)
    runs = gpu_record.recorded_runs.__wrapped__(tmp_path / verified.PLACES[1])
    assert [(run["compute_capability"], set(run["verified"])) for run in runs] == [
        ("8.0", {"cuda/mma"}),
        ("9.0", {"cuda/wgmma"}),
    ]
    assert (ROOT / verified.PLACES[1]).resolve() == gpu_record.RECORD.resolve()


def test_hash_of_the_sources_changes_with_them_alone(context):
    root = context.root
    before = verified.sources_hash(root)
    (root / "proto_engine" / "_core.so").write_bytes(b"built")
    (root / "proto_engine" / "gpu_verified.json").write_text("{}")
    (root / "tests" / "test_cuda.py").write_text("other tests")
    assert verified.sources_hash(root) == before
    changes = {
        "content": lambda: (root / "csrc/cuda/rows.cu").write_text("int x;\n"),
        "name": lambda: (root / "csrc/cuda/rows.cu").rename(root / "csrc/cuda/row.cu"),
        "more": lambda: (root / "proto_engine/more.py").write_text(""),
    }
    seen = {before}
    for change in changes.values():
        change()
        seen.add(verified.sources_hash(root))
    assert len(seen) == 1 + len(changes)


def test_gpu_is_what_nvidia_smi_tells(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for told, wanted in (
        ("NVIDIA H100 80GB HBM3, 9.0, 580.159.04", H100),
        ("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver", None),
        ("", None),
    ):
        program.write_text(f"#!/bin/sh\necho '{told}'\n")
        program.chmod(0o755)
        assert verified.present_gpu() == wanted
    program.write_text("#!/bin/sh\nexit 9\n")
    assert verified.present_gpu() is None


def test_results_of_another_machine_are_taken_over_once(context, capsys):
    away = context.out
    rows = [{"bench": "bench_eta", "n": n} for n in range(3)]
    append_rows(away / "results.jsonl", [{"bench": "gpu_check"}, *rows])
    assert take_results.main([str(away)], context.root) == 1  # no record
    verified.write_record(H100, ["cuda/simt"], context.root)
    text = (context.root / verified.PLACES[1]).read_text()
    for place in verified.PLACES:
        (context.root / place).unlink()
    (away / "gpu_verified.json").write_text(text)
    assert take_results.main([str(away)], context.root) == 0
    assert read_rows(context.root / "benchmarks" / "results" / "bench_eta.jsonl") == rows
    assert all((context.root / place).read_text() == text for place in verified.PLACES)
    (context.root / "csrc/cuda/rows.cu").write_text("changed since\n")
    assert take_results.main([str(away)], context.root) == 1
    assert "other sources" in capsys.readouterr().err
    assert take_results.main([str(away / "nowhere")], context.root) == 2


def test_commit_outside_a_repository_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("PROTO_ENGINE_COMMIT", raising=False)
    assert verified.commit(tmp_path) == "unknown"
    monkeypatch.setenv("PROTO_ENGINE_COMMIT", "0123abc")
    assert verified.commit(tmp_path) == "0123abc"
