"""Peak memory of a variant on the host, measured in a fresh process: there nothing else has touched memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import peak_memory, thread_limit
from rows import OUT_OF_MEMORY

if TYPE_CHECKING:
    from parts import Bench, Case, Variant

_FLAG = "--memory-of"


def memory_in_child(bench: Bench, case: Case, variant: Variant, folder: Path) -> Any:
    """Peak memory of one variant in a fresh process: (growth, peak), None, or "out of memory"."""
    wanted = json.dumps({"case": case, "variant": variant.key, "folder": str(folder)})
    done = subprocess.run([sys.executable, str(bench.script), _FLAG, wanted], capture_output=True, text=True)
    if done.returncode == -9:  # the kernel's out-of-memory killer leaves no other trace
        return OUT_OF_MEMORY
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of {variant.key} failed:\n{done.stderr}")
    answer = json.loads(done.stdout.splitlines()[-1])
    print(f"{bench.name} {case}: {variant.key} memory {answer}", file=sys.stderr, flush=True)
    return answer


def serve_memory(bench: Bench, arguments: Sequence[str]) -> bool:
    """The other end of `memory_in_child`: True when the arguments asked for it and it is done.

    Inputs are loaded and the variant has run once on tiny ones before the measurement starts, so that
    neither the data nor the code of the libraries counts as growth.
    """
    if len(arguments) != 2 or arguments[0] != _FLAG:
        return False
    from places import Host

    wanted = json.loads(arguments[1])
    side, place = bench.host, Host()
    case, folder = wanted["case"], Path(wanted["folder"])
    variant = next(v for v in side.variants(case, place) if v.key == wanted["variant"])
    tiny = side.inputs(side.tiny(case), folder / "tiny", place)
    inputs = side.inputs(case, folder / "full", place)
    with thread_limit(variant.threads):
        variant.call(tiny)
    with thread_limit(variant.threads):  # once more, now that the libraries are loaded
        try:
            answer: Any = peak_memory(lambda: variant.call(inputs))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            answer = OUT_OF_MEMORY
    print(json.dumps(answer))
    return True
