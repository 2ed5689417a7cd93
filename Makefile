# make demo   train on images with wrong labels, with and without self-correction, and compare
#             (NOISE=pairflip:0.4 for other noise; DATA=fashion-mnist with ROOT=folder or DOWNLOAD=1)
# make test   the whole test suite
# Both set up everything they need in .venv first (a few minutes and 9 GB the first time, 11 GB while at it).
# make gpu-check   on a machine with an NVIDIA GPU: build, each tile loop by itself, tests, compute-sanitizer and
#                  benchmarks, in ten minutes and without network; into $(PYTHON) as it is
#                  (OUT=folder, STEPS=some,of,them: benchmarks/gpu_check.py)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= digits
NOISE ?= symmetric:0.4
SEEDS ?= 3
DEMO_OUT ?= runs/demo
NATIVE := $(wildcard csrc/*.* csrc/cpu/* csrc/cuda/*)
CXX_SOURCES := $(wildcard csrc/*.h csrc/*.cpp csrc/cpu/*.h csrc/cpu/*.cpp csrc/cuda/*.h csrc/cuda/*.cu csrc/cuda/*.cuh tests/cuda_host/* benchmarks/*.cu)

.PHONY: demo test lint sanitize gpu-check bench report clean

demo: $(VENV)/.package
	$(BIN)/python examples/demo.py --data $(DATA) --noise $(NOISE) --seeds $(SEEDS) --out $(DEMO_OUT) \
	    $(if $(ROOT),--root $(ROOT)) $(if $(DOWNLOAD),--download)

test: $(VENV)/.package
	$(BIN)/pytest --cov --cov-fail-under=95 $(PYTEST_ARGS)

lint: $(VENV)/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

# Of the kernels on the host: each by itself, and the whole engine once for every element and tile loop.
SANITIZED := $(filter-out %_backend.py %_engine.py,$(wildcard tests/test_cuda_host*.py)) tests/test_cuda_graph.py \
    tests/test_cuda_host_backend.py::test_elements_of_any_kind_have_the_bits_of_the_reference

# The engine's tests against a core built with AddressSanitizer and UndefinedBehaviorSanitizer, and the CUDA
# kernels, compiled for the host in the same way.
sanitize: $(VENV)/.package
	rm -rf build/sanitize
	PROTO_ENGINE_CUDA=0 PROTO_ENGINE_SANITIZE=address,undefined \
	    $(BIN)/pip install -q --no-build-isolation --no-deps --target build/sanitize .
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so) $$(c++ -print-file-name=libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PROTO_ENGINE_SANITIZED=1 \
	    PYTHONPATH=build/sanitize $(BIN)/pytest -q -p no:cacheprovider tests/native $(SANITIZED)

gpu-check:
	$(PYTHON) benchmarks/gpu_check.py $(if $(OUT),--out $(OUT)) $(if $(STEPS),--steps $(STEPS))

bench: $(VENV)/.package
	for bench in similarity cutoff density eta score engine; do $(BIN)/python benchmarks/bench_$$bench.py || exit 1; done

report: $(VENV)/.package
	$(BIN)/python benchmarks/report.py

clean:
	rm -rf build runs .coverage

# In three steps, because pip keeps every wheel of a step until all of it is unpacked: 13 GB at once otherwise.
$(VENV)/.stack: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip "setuptools>=77" wheel
	$(BIN)/pip install -q -c constraints.txt --no-deps torch
	$(BIN)/pip install -q -c constraints.txt `$(BIN)/python .ci/requirements.py train`
	$(BIN)/pip install -q -c constraints.txt "pybind11>=3,<4" cmake ninja ruff mypy clang-format pre-commit \
	    `$(BIN)/python .ci/requirements.py test cuda12 bench integrations`
	touch $@

$(VENV)/.package: $(VENV)/.stack setup.py $(NATIVE)
	$(BIN)/pip install -q --no-build-isolation --no-deps -e .
	touch $@
