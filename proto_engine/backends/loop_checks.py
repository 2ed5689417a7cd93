"""Whether the parts of a backend with tile loops can be trusted on a device, and which of them to use there.

Every tile loop is a part by itself ("cuda/mma"), and so are the scores ("cuda/score") and those of clusters of blocks
("cuda/score-cluster"). A tile loop that no recorded run on such a GPU has verified (`gpu_record`) can be named, but
"auto" never takes it; nor do clusters score before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BackendUnavailable
from .device import SCORE_CLUSTER, WITHOUT_LOOPS, loops_left_out
from .gpu_record import verified
from .outcomes import being_checked, outcome
from .small_case import ETA_MAX, PICKS, QUANTILE, picks_differ, pools_differ, scores_differ, small_cases

if TYPE_CHECKING:
    from .device_backend import DeviceBackend


def choose_loop(backend: DeviceBackend, device: int, wanted: str | None, available: list[str]) -> str:
    """The tile loop to use on a device.

    Parameters
    ----------
    backend : DeviceBackend
    device : int
    wanted : str or None
        The loop that was named. By default the fastest that is verified and passes its check, or the plainest.
    available : list of str
        Loops that can run there, the slowest first.

    Raises
    ------
    BackendUnavailable
        The named loop cannot run there or failed its check, or no loop is left.
    """
    checked = (being_checked() or "").removeprefix(f"{backend.name}/")
    if checked in available:
        return checked
    if not available:
        raise BackendUnavailable(
            f"backend {backend.name!r} is unavailable: device {device} runs none of its loops{left_out_text()}"
        )
    if wanted is not None and wanted not in available:
        raise BackendUnavailable(
            f"loop: wanted one of {', '.join(map(repr, available))} on device {device}, got {wanted!r}{left_out_text()}"
        )
    names = [wanted] if wanted else [*verified_loops(backend, device, available), available[0]]
    reasons = {}
    for loop in dict.fromkeys(names):
        reasons[loop] = loop_outcome(backend, device, loop)
        if reasons[loop] is None:
            return loop
    failed = "; ".join(f"{loop}: {reason}" for loop, reason in reasons.items())
    raise BackendUnavailable(f"backend {backend.name!r} is unavailable: failed its self-check ({failed})")


def loop_outcome(backend: DeviceBackend, device: int, loop: str) -> str | None:
    """None where a tile loop passes on a device, else what was wrong."""
    return outcome(f"{backend.name}/{loop}", device, lambda: _loop_differs(backend, device))


def require_scores(backend: DeviceBackend, device: int) -> None:
    """Nothing where the scores of a backend pass on a device.

    Raises
    ------
    BackendUnavailable
        They do not.
    """
    reason = score_outcome(backend, device)
    if reason is not None:
        raise BackendUnavailable(f"backend {backend.name!r} cannot score: failed its self-check ({reason})")


def score_outcome(backend: DeviceBackend, device: int) -> str | None:
    """None where the scores pass on a device, else what was wrong."""
    part = f"{backend.name}/score"
    return outcome(part, device, lambda: scores_differ(backend, lambda x: backend.copied(x, device)))


def clusters_score(backend: DeviceBackend, device: int, wanted: bool | None) -> bool:
    """Whether clusters of blocks find the best two classes on a device.

    Parameters
    ----------
    backend : DeviceBackend
    device : int
    wanted : bool or None
        What was asked for. By default they do where a recorded run has verified them and they pass their check.

    Raises
    ------
    BackendUnavailable
        They were asked for, and cannot or failed their check.
    """
    part = f"{backend.name}/{SCORE_CLUSTER}"
    if being_checked() is not None:
        return being_checked() == part
    if wanted is False or (wanted is None and part not in verified(backend.compute_capability(device))):
        return False
    reason = cluster_outcome(backend, device)
    if wanted and reason is not None:
        raise BackendUnavailable(f"backend {backend.name!r} cannot score in clusters: {reason}")
    return reason is None


def cluster_outcome(backend: DeviceBackend, device: int) -> str | None:
    """None where the scores of clusters pass on a device, else what was wrong."""
    if not backend._clusters_can_score(device):
        return f"device {device} does not run them{left_out_text()}"
    part = f"{backend.name}/{SCORE_CLUSTER}"
    return outcome(part, device, lambda: scores_differ(backend, lambda x: backend.copied(x, device)))


def verified_loops(backend: DeviceBackend, device: int, available: list[str]) -> list[str]:
    """Those that a recorded run has verified on such a GPU, the fastest first."""
    known = verified(backend.compute_capability(device))
    return [loop for loop in reversed(available) if f"{backend.name}/{loop}" in known]


def left_out_text() -> str:
    """What a message adds where tile loops are left out by the environment."""
    found = loops_left_out()
    return f" ({WITHOUT_LOOPS} leaves out {', '.join(sorted(found))})" if found else ""


def _loop_differs(backend: DeviceBackend, device: int) -> str | None:
    for case in small_cases():
        rows = backend.copied(case.rows, device)
        picks = backend.pick_ragged(rows, backend.squared_norms(rows), case.sizes, PICKS, QUANTILE, ETA_MAX)
        if difference := picks_differ(case, picks):
            return difference
    return pools_differ(backend, lambda x: backend.copied(x, device))
