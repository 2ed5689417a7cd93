"""`PrototypeCorrector`: label correction with the manners of a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .array_kinds import is_cupy, is_tensor, readable
from .arrays import as_bank, to_numpy
from .bank import FeatureBank
from .bank_formats import FLOAT_DTYPES
from .corrections import COLUMNS, Corrections
from .policy import Policy
from .scoring import correct_labels, score_samples
from .selection import select_prototypes
from .transform import BankTransform


class PrototypeCorrector(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Correct noisy labels by the class prototypes found among the noisy samples themselves.

    `fit` picks the prototypes, `predict` gives the class that a sample scores highest for,
    `correct` and `fit_predict` apply that to the samples whose labels are in doubt.

    Parameters
    ----------
    prototypes_per_class, samples_per_class, cutoff_quantile, eta_max, contrast_quantile
        As in `select_prototypes`.
    method, backend, seed, on_bad_rows
        As in `select_prototypes`.
    feature_transform : {"center", "whiten"} or BankTransform, optional
        ``transform`` of `select_prototypes`. (scikit-learn takes whatever has a ``transform`` for a transformer.)
    min_margin : float
        As in `correct_labels`: a smaller lead keeps the given label. Has no effect on `predict`.
    policy : {"confident", "all"} or callable
        As in `correct_labels`: which labels `correct` and `fit_predict` change. "confident" weighs the evidence in
        the samples that they are given; "all" is the published method, which takes every label from the prototypes
        that `fit` has found. Has no effect on `predict`. A function gets labels as class numbers.

    Attributes
    ----------
    classes_ : numpy.ndarray, [C]
        The labels, sorted.
    n_features_in_ : int
        D.
    prototypes_ : Prototypes
        Class c of the prototypes is ``classes_[c]``.

    Notes
    -----
    ``X`` is anything array-like, a torch tensor, a CuPy array or a `FeatureBank`. Float arrays, tensors, memory
    maps and banks are used where they are, without a copy; ``classes_`` and predictions are numpy arrays.

    References
    ----------
    Han, Luo, Wang: Deep Self-Learning From Noisy Labels. ICCV 2019.
    """

    def __init__(
        self,
        *,
        prototypes_per_class: int | float | str = 8,
        samples_per_class: int | None = 1280,
        cutoff_quantile: float = 0.6,
        eta_max: float = 0.95,
        contrast_quantile: float = 0.9,
        method: str = "density-peaks",
        backend: str = "auto",
        seed: int = 0,
        on_bad_rows: str = "raise",
        feature_transform: str | BankTransform | None = None,
        min_margin: float = 0.0,
        policy: Policy = "confident",
    ) -> None:
        self.prototypes_per_class = prototypes_per_class
        self.samples_per_class = samples_per_class
        self.cutoff_quantile = cutoff_quantile
        self.eta_max = eta_max
        self.contrast_quantile = contrast_quantile
        self.method = method
        self.backend = backend
        self.seed = seed
        self.on_bad_rows = on_bad_rows
        self.feature_transform = feature_transform
        self.min_margin = min_margin
        self.policy = policy

    def fit(self, X: Any, y: Any) -> PrototypeCorrector:
        """Pick the prototypes of each class.

        Parameters
        ----------
        X : array-like, tensor or FeatureBank, [N, D]
            Features.
        y : array-like, [N]
            Given labels of any type that sorts.

        Returns
        -------
        PrototypeCorrector
            This object.

        Raises
        ------
        TypeError, ValueError
            What `select_prototypes` raises; labels that are missing, continuous or of another length.
        """
        bank = self._bank(X, reset=True)
        labels = self._column(y, len(bank))
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.prototypes_ = select_prototypes(
            bank,
            codes,
            num_classes=len(self.classes_),
            prototypes_per_class=self.prototypes_per_class,
            samples_per_class=self.samples_per_class,
            cutoff_quantile=self.cutoff_quantile,
            eta_max=self.eta_max,
            contrast_quantile=self.contrast_quantile,
            method=self.method,
            backend=self.backend,
            seed=self.seed,
            on_bad_rows=self.on_bad_rows,
            transform=self.feature_transform,
        )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of highest score, [N], in the type of the labels given to `fit`.

        Rows that are zero or not finite always raise: there is no given label to keep.
        """
        check_is_fitted(self)
        bank = self._bank(X, reset=False)
        nothing = np.zeros(len(bank), dtype=np.int64)  # with no margin asked for, every label is replaced
        found = correct_labels(bank, nothing, self.prototypes_, backend=self.backend)
        return np.asarray(self.classes_[to_numpy(found.labels)])

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores, [N, C]; for two classes the score of the second minus that of the first, [N].

        With ``on_bad_rows="keep-label"`` rows that are zero or not finite have the score NaN.
        """
        check_is_fitted(self)
        bank = self._bank(X, reset=False)
        sigma = to_numpy(score_samples(bank, self.prototypes_, backend=self.backend, on_bad_rows=self.on_bad_rows))
        return sigma[:, 1] - sigma[:, 0] if len(self.classes_) == 2 else sigma

    def fit_predict(self, X: Any, y: Any) -> np.ndarray:
        """`fit`, then the corrected labels of the same samples, [N], in the type of ``y``."""
        return np.asarray(self.fit(X, y).correct(X, y).labels)

    def correct(self, X: Any, y: Any) -> Corrections:
        """Correct the labels of samples, those of `fit` or others.

        Parameters
        ----------
        X : array-like, tensor or FeatureBank, [N, D]
            Features.
        y : array-like, [N]
            Given labels, all of them among ``classes_``.

        Returns
        -------
        Corrections
            numpy arrays; ``labels``, ``given`` and ``likely`` in the type of ``classes_``.

        Raises
        ------
        TypeError, ValueError
            What `correct_labels` raises; a label that `fit` did not see.
        """
        check_is_fitted(self)
        bank = self._bank(X, reset=False)
        found = correct_labels(
            bank,
            self._encode(y, len(bank)),
            self.prototypes_,
            policy=self.policy,
            backend=self.backend,
            min_margin=self.min_margin,
            on_bad_rows=self.on_bad_rows,
        )
        columns = {name: getattr(found, name) for name in COLUMNS}
        columns = {name: None if column is None else to_numpy(column) for name, column in columns.items()}
        for name in ("labels", "given", "likely"):
            if columns[name] is not None:
                columns[name] = self.classes_[columns[name]]
        return replace(found, **columns)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.on_bad_rows == "keep-label"
        return tags

    def _bank(self, X: Any, reset: bool) -> FeatureBank:
        """``X`` as a bank. Arrays that the engine reads as they are skip scikit-learn's copy."""
        X = readable(X, "X")
        plain = type(X) in (np.ndarray, np.memmap) and X.ndim == 2 and X.size > 0 and X.dtype in FLOAT_DTYPES
        if plain or is_tensor(X) or is_cupy(X) or isinstance(X, FeatureBank):
            bank = as_bank(X, "X")
            validate_data(self, X, reset=reset, skip_check_array=True)
            return bank
        # NaN and infinity are left to the engine, which knows what on_bad_rows wants.
        floats = [np.float32, np.float64, np.float16]
        return as_bank(validate_data(self, X, reset=reset, dtype=floats, ensure_all_finite=False), "X")

    def _column(self, y: Any, num_samples: int) -> np.ndarray:
        if y is None:
            raise ValueError(f"This {type(self).__name__} requires y to be passed, but the target y is None.")
        labels = column_or_1d(to_numpy(y, "y"), warn=True)
        assert_all_finite(labels, input_name="y")
        if len(labels) != num_samples:
            raise ValueError(f"y: wanted {num_samples} labels, one a row of X, got {len(labels)}")
        return np.asarray(labels)

    def _encode(self, y: Any, num_samples: int) -> np.ndarray:
        """Class numbers of labels among ``classes_``, int64 [N]."""
        labels, inverse = np.unique(self._column(y, num_samples), return_inverse=True)
        place = {label: number for number, label in enumerate(self.classes_.tolist())}
        unknown = [label for label in labels.tolist() if label not in place]
        if unknown:
            raise ValueError(f"y: wanted labels that fit has seen, got {unknown[:5]!r}")
        return np.array([place[label] for label in labels.tolist()], dtype=np.int64)[inverse]
