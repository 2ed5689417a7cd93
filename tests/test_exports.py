"""cleanlab's table and Label Studio's tasks, from corrections known by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from proto_engine import Corrections


def example() -> Corrections:
    return Corrections(
        labels=np.array([0, 1, 1, 2]),
        given=np.array([0, 0, 1, 1]),
        score=np.full(4, 0.5),
        margin=np.full(4, 0.1),
        changed=np.array([False, True, False, True]),
        issue_score=np.array([0.1, 0.7, 0.6, 0.9]),
        likely=np.array([0, 1, 2, 2]),
        probability=np.array([0.9, 0.65, 0.5, 0.85]),
    )


def test_cleanlab_table_says_what_cleanlab_would():
    frame = example().to_cleanlab()
    assert frame["is_label_issue"].tolist() == [False, True, False, True]
    np.testing.assert_allclose(frame["label_score"], [0.9, 0.3, 0.4, 0.1])
    assert frame["given_label"].tolist() == [0, 0, 1, 1]
    assert frame["predicted_label"].tolist() == [0, 1, 2, 2]


def test_cleanlab_table_is_read_back_by_the_trainer():
    from proto_trainer.integrations.cleanlab import from_cleanlab

    found = example()
    probabilities = np.full((4, 3), 0.05)
    probabilities[np.arange(4), found.likely] = 0.9
    back = from_cleanlab(found.to_cleanlab(), found.given, probabilities)
    assert back.labels.tolist() == found.labels.tolist()
    assert back.changed.tolist() == found.changed.tolist()


def test_label_studio_tasks_are_the_changed_rows_the_most_suspect_first(tmp_path):
    path = tmp_path / "tasks.json"
    images = [f"/data/{name}.jpg" for name in "wxyz"]
    assert example().save_label_studio(path, images, class_names=["cat", "dög", "</b>"]) == 2
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert tasks[0]["data"] == {"image": "/data/z.jpg", "index": 3, "given_label": "dög", "issue_score": 0.9}
    (prediction,) = tasks[0]["predictions"]
    assert prediction["score"] == 0.85
    assert prediction["result"] == [
        {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["</b>"]}}
    ]
    assert tasks[1]["data"]["index"] == 1


def test_label_studio_tasks_of_all_rows(tmp_path):
    path = tmp_path / "tasks.json"
    assert example().save_label_studio(path, list("wxyz"), only_changed=False) == 4
    assert [task["data"]["index"] for task in json.loads(path.read_text())] == [3, 1, 2, 0]


def test_what_cannot_be_exported_is_said(tmp_path):
    plain = Corrections(*(np.zeros(2, dtype=np.int64),) * 5)
    with pytest.raises(ValueError, match="to_cleanlab: wanted corrections with evidence"):
        plain.to_cleanlab()
    with pytest.raises(ValueError, match="save_label_studio: wanted corrections with evidence"):
        plain.save_label_studio(tmp_path / "a.json", ["a", "b"])
    with pytest.raises(ValueError, match="images: wanted 4, one a row, got 3"):
        example().save_label_studio(tmp_path / "a.json", list("wxy"))
    with pytest.raises(ValueError, match=r"path: wanted .*\.json"):
        example().save_label_studio(tmp_path / "a.txt", list("wxyz"))
    with pytest.raises(ValueError, match="class_names: wanted a name for each label up to 2, got 2 names"):
        example().save_label_studio(tmp_path / "a.json", list("wxyz"), class_names=["a", "b"])
    assert list(tmp_path.iterdir()) == []
