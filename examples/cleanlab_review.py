"""Scores of prototypes into cleanlab, its label issues back out: corrected labels, and a list to look through."""

from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from proto_trainer.integrations.cleanlab import from_cleanlab, pred_probs, save_verified
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import proto_engine as pe


def main(folder: Path, looks: int = 200) -> tuple[float, float]:
    """Find wrong labels among digits, 30 % of them wrong; returns the accuracy of the labels, before and after."""
    rng = np.random.default_rng(0)
    digits = load_digits()
    truth = digits.target
    features = PCA(15, whiten=True, random_state=0).fit_transform(digits.data)  # [N, D]; your network's, if any
    wrong = rng.random(len(truth)) < 0.3
    given = np.where(wrong, (truth + rng.integers(1, 10, len(truth))) % 10, truth)

    prototypes = pe.select_prototypes(features, given)
    sigma = pe.score_samples(features, prototypes)  # [N, C]
    probabilities = pred_probs(sigma, given)  # [N, C], rows sum to 1
    ranked = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence")  # [K], worst first

    corrections = from_cleanlab(ranked, given, probabilities)
    corrections.save(folder / "corrected.parquet")  # the table that proto-train writes, too
    before, after = (given == truth).mean(), (corrections.labels == truth).mean()
    print(f"{len(ranked)} of {len(given)} labels are suspicious, {wrong[ranked].mean():.0%} of these are wrong")
    print(f"label accuracy: given {before:.3f}, corrected {after:.3f}")

    looked_at = ranked[:looks]  # the verdicts come from a person; here from the truth
    save_verified(folder / "verified.csv", looked_at, correct=given[looked_at] == truth[looked_at])
    return before, after


if __name__ == "__main__":
    main(Path())
