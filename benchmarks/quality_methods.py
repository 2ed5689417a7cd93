"""Ways to find wrong labels and to put them right, each from features and given labels alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import proto_engine as pe

OURS = "evidence"
NEIGHBORS, FOLDS = 20, 5


@dataclass(frozen=True)
class Inputs:
    """What a method may see; the truth is not among it.

    Attributes
    ----------
    features : ndarray, float [N, D]
    labels : ndarray, int64 [N]
    num_classes : int
    pixels : ndarray, uint8 [N, channels, height, width], or None
    seed : int
    """

    features: np.ndarray
    labels: np.ndarray
    num_classes: int
    pixels: np.ndarray | None = None
    seed: int = 0


@dataclass(frozen=True)
class Verdict:
    """What a method says.

    Attributes
    ----------
    suspicion : dict of str to ndarray, float [N]
        Scores by name, higher where the label is more likely wrong; the first is what the method gives by default.
    suggested : ndarray, int64 [N]
    changed : ndarray, bool [N]
        The rows that somebody who keeps to the defaults would change.
    told : dict
        What else it says: ``noise`` (estimated share of wrong labels), ``note``, ``expected`` and ``expected_all``
        (the share it expects to be right of the default changes, and of all suggestions).
    """

    suspicion: dict[str, np.ndarray]
    suggested: np.ndarray
    changed: np.ndarray
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A line of the tables.

    Attributes
    ----------
    title : str
        Its name in the tables.
    call : callable
        ``Inputs -> Verdict``.
    settings : dict
        What decides the outcome besides the inputs.
    seeded : bool
        Whether the seed does.
    needs_pixels : bool
    """

    title: str
    call: Callable[[Inputs], Verdict]
    settings: dict[str, Any] = field(default_factory=dict)
    seeded: bool = True
    needs_pixels: bool = False


def evidence(inputs: Inputs) -> Verdict:
    """The engine's evidence; by default the changes it is confident of."""
    from proto_engine.evidence import label_evidence

    found = label_evidence(inputs.features, inputs.labels, num_classes=inputs.num_classes, seed=inputs.seed)
    suggested = np.asarray(found.suggested)
    changed = np.asarray(found.confident()) & (suggested != inputs.labels)
    told = {
        "noise": float(found.noise),
        "note": str(found.reason or ""),
        "expected": _expected(found, changed),
        "expected_all": _expected(found, suggested != inputs.labels),
    }
    return Verdict({"issue score": np.asarray(found.issue_score)}, suggested, changed, told)


def _expected(found: Any, changed: np.ndarray) -> float | None:
    return float(found.expected_right(changed)) if changed.any() else None


def prototypes(inputs: Inputs, **settings: Any) -> Verdict:
    """Prototypes of the engine, every row gets the best label; suspect are rows whose own class scores low."""
    picked = pe.select_prototypes(
        inputs.features, inputs.labels, num_classes=inputs.num_classes, seed=inputs.seed, **settings
    )
    suggested = pe.correct_labels(inputs.features, inputs.labels, picked).labels
    return _replace_all(inputs, pe.score_samples(inputs.features, picked), suggested)


def neighbor_vote(inputs: Inputs) -> Verdict:
    """The class of most of the nearest other rows; ties go to the given label, then to the lower class."""
    votes = neighbor_shares(inputs)
    return _replace_all(inputs, votes, _winner(votes, inputs.labels))


def network(inputs: Inputs) -> Verdict:
    """The margin of a network that was trained on the given labels."""
    from image_banks import train_network

    assert inputs.pixels is not None
    logits, _ = train_network(inputs.pixels, inputs.labels, inputs.num_classes, inputs.seed, NETWORK["epochs"])
    return _replace_all(inputs, logits, logits.argmax(1))


def cleanlab_logistic(inputs: Inputs) -> Verdict:
    """cleanlab on the probabilities of logistic regression, each row by a model that has not seen it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=LOGISTIC["max_iter"]))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=inputs.seed)
    features = inputs.features.astype(np.float32)
    return _cleanlab(inputs, cross_val_predict(model, features, inputs.labels, cv=folds, method="predict_proba"))


def cleanlab_neighbors(inputs: Inputs) -> Verdict:
    """cleanlab on the shares of the nearest other rows."""
    return _cleanlab(inputs, neighbor_shares(inputs))


def _cleanlab(inputs: Inputs, probabilities: np.ndarray) -> Verdict:
    """As its tutorials do: rows that it flags get the most likely class."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    flagged = find_label_issues(inputs.labels, probabilities, n_jobs=1)
    suspicion = {
        name.replace("_", " "): -get_label_quality_scores(inputs.labels, probabilities, method=name)
        for name in ("self_confidence", "normalized_margin")  # its default first
    }
    return Verdict(suspicion, probabilities.argmax(1), np.asarray(flagged, dtype=bool))


def neighbor_shares(inputs: Inputs) -> np.ndarray:
    """Share of each class among the `NEIGHBORS` rows with the largest cosine, itself left out.   float64 [N, C]"""
    import faiss

    unit = inputs.features.astype(np.float32)
    faiss.normalize_L2(unit)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    found = index.search(unit, NEIGHBORS + 1)[1]  # [N, k + 1], a row's nearest is itself or its duplicate
    itself = found == np.arange(len(found))[:, None]
    itself[~itself.any(axis=1), -1] = True  # more than k duplicates: one of them is left out in its place
    others = found[~itself].reshape(len(found), NEIGHBORS)
    votes = np.zeros((len(found), inputs.num_classes))
    for column in others.T:
        votes[np.arange(len(found)), inputs.labels[column]] += 1
    return votes / NEIGHBORS


def _winner(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    own = scores[np.arange(len(labels)), labels]
    return np.where(own == scores.max(axis=1), labels, scores.argmax(axis=1))


def _replace_all(inputs: Inputs, scores: np.ndarray, suggested: np.ndarray) -> Verdict:
    """Suspicion is minus the margin of the given class; all suggestions are taken."""
    rows = np.arange(len(inputs.labels))
    others = np.array(scores, dtype=np.float64)
    own = others[rows, inputs.labels]
    others[rows, inputs.labels] = -np.inf
    return Verdict({"margin": others.max(axis=1) - own}, np.asarray(suggested), suggested != inputs.labels)


LOGISTIC = {"folds": FOLDS, "max_iter": 300}
NETWORK = {"model": "small-cnn", "epochs": 3}
CONTRAST = {
    "method": "density-contrast",
    "samples_per_class": None,
    "contrast_quantile": 0.99,
    "prototypes_per_class": 1.0,
}

METHODS = {
    OURS: Method("evidence (ours)", evidence),
    "published": Method("published rule, 8 prototypes", prototypes),
    "density-contrast": Method(
        "density contrast, whole classes", lambda inputs: prototypes(inputs, **CONTRAST), CONTRAST, seeded=False
    ),
    "cleanlab-logistic": Method("cleanlab, logistic regression", cleanlab_logistic, LOGISTIC),
    "cleanlab-neighbors": Method(
        "cleanlab, nearest neighbors", cleanlab_neighbors, {"neighbors": NEIGHBORS}, seeded=False
    ),
    "neighbor-vote": Method("vote of nearest neighbors", neighbor_vote, {"neighbors": NEIGHBORS}, seeded=False),
    "network": Method("margin of a network", network, NETWORK, needs_pixels=True),
}
