"""proto_engine: correct noisy image labels with density-peak prototypes of deep features.

The method is that of Han, Luo, Wang, *Deep Self-Learning From Noisy Labels* (ICCV 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .backends import backends, self_check
from .bank import FeatureBank
from .corrections import Corrections
from .errors import BackendUnavailable
from .files import atomic_write
from .ops import similarity
from .peaks import DensityPeaks, density_peaks
from .prototypes import Prototypes
from .scoring import correct_labels, score_samples
from .selection import select_prototypes
from .transform import BankTransform
from .versions import __version__, show_versions

if TYPE_CHECKING:
    from .corrector import PrototypeCorrector
    from .evidence import LabelEvidence, label_evidence

__all__ = [
    "BackendUnavailable",
    "BankTransform",
    "Corrections",
    "DensityPeaks",
    "FeatureBank",
    "LabelEvidence",
    "PrototypeCorrector",
    "Prototypes",
    "__version__",
    "atomic_write",
    "backends",
    "correct_labels",
    "density_peaks",
    "label_evidence",
    "score_samples",
    "select_prototypes",
    "self_check",
    "show_versions",
    "similarity",
]


def __getattr__(name: str) -> Any:
    if name == "PrototypeCorrector":  # brings scikit-learn, which takes a second to import
        from .corrector import PrototypeCorrector

        return PrototypeCorrector
    if name in ("LabelEvidence", "label_evidence"):  # brings SciPy's linear algebra
        from . import evidence

        return getattr(evidence, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
