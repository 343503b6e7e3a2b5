"""Training the finder: views and their targets, and a run that learns and resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from finder_training.training import detection_loss, train_finder
from finder_training.views import VIEW, Example, TrainingViews, make_targets
from wbc_hf.data import paint_field
from wbc_hf.modeling import FinderConfig, FinderNetwork, decode

CONFIG = FinderConfig()
SMALL = FinderConfig(stem=4, widths=(8, 8, 8), depths=(1, 1, 1), deepest=8, neck=8)
NOTHING = np.zeros((VIEW, VIEW), bool)


def painted(count: int = 6, *, complete: bool = True) -> list[Example]:
    fields = [paint_field([seed % 5] * (2 + seed), 320, 240, seed=seed) for seed in range(count)]
    return [Example(field.image, field.boxes.astype(float), complete, "painted") for field in fields]


def outputs_of(targets: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """What a perfect network would give: certain at centres, with the boxes of the targets."""
    outputs = []
    for stride in CONFIG.strides:
        heat = torch.where(targets[f"heat{stride}"] == 1, 5.0, -9.0)
        outputs.append(torch.cat([heat[None], targets[f"box{stride}"]]).numpy())
    return outputs


@pytest.mark.parametrize("size", [12.0, 30.0, 50.0, 80.0, 150.0])
def test_targets_say_where_each_cell_is_at_a_stride_for_its_size(size: float):
    boxes = np.array([[100, 90, 100 + size, 90 + 0.8 * size]])
    targets = make_targets(boxes, NOTHING, CONFIG)
    found, _ = decode(outputs_of(targets), CONFIG.strides, [0.5] * 3)
    assert found == pytest.approx(boxes, abs=0.01)


def test_what_is_not_learned_from_is_neither_cell_nor_background():
    ignored = NOTHING.copy()
    ignored[:, : VIEW // 2] = True
    heat = make_targets(np.array([[200.0, 100, 230, 130]]), ignored, CONFIG)["heat4"]
    assert (heat[:, : VIEW // 8] == -1).all()
    assert (heat[:, VIEW // 8 :] >= 0).all()
    assert (heat == 1).sum() == 1


def test_boxes_stay_round_their_cells_in_every_view():
    """Purple is inside the boxes: painted fields without artefacts have none beside."""
    views = TrainingViews(painted(), CONFIG, seed=0)
    inside, outside = [], []
    for number in range(24):
        item = views[number, number % 6]
        assert item["pixels"].shape == (3, VIEW, VIEW)
        heat = torch.nn.functional.interpolate((item["heat8"] == 1).float()[None, None], scale_factor=8)[0, 0] > 0
        brightness = item["pixels"].float().mean(0)
        if heat.any():
            inside.append(float(brightness[heat].mean()))
            outside.append(float(brightness.mean()))
    assert len(inside) >= 5
    assert np.mean(np.array(inside) < np.array(outside)) > 0.7


def test_views_depend_on_their_number_alone():
    views = TrainingViews(painted(2), CONFIG, seed=3)
    first, again, other = views[5, 0], views[5, 0], views[6, 0]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pixels"], other["pixels"])


def test_pictures_without_smear_have_no_cells():
    views = TrainingViews(painted(2), CONFIG, seed=3)
    for number in range(8):
        item = views[number, -1]
        assert all(float(item[f"heat{stride}"].abs().max()) == 0 for stride in CONFIG.strides)


def test_of_an_incomplete_picture_only_the_boxes_are_learned_from():
    views = TrainingViews(painted(3, complete=False), CONFIG, seed=1)
    ignored = [float((views[number, number % 3]["heat8"] == -1).float().mean()) for number in range(6)]
    assert np.mean(ignored) > 0.3


@pytest.mark.slow
def test_a_run_resumes_as_if_it_had_not_stopped(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch):
    examples, shares = painted(), {"painted": 1.0}
    options = {"config": SMALL, "batch_size": 4, "steps": 8, "seed": seed, "checkpoint_every": 2, "workers": 0}
    whole = train_finder(examples, shares, tmp_path / "whole", **options)

    calls = iter(range(100))

    def interrupted(*arguments: object) -> torch.Tensor:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return detection_loss(*arguments)

    monkeypatch.setattr("finder_training.training.detection_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_finder(examples, shares, tmp_path / "stopped", **options)
    monkeypatch.undo()
    resumed = train_finder(examples, shares, tmp_path / "stopped", **options)

    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


@pytest.mark.long
@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path: Path, seed: int):
    torch.manual_seed(seed)
    examples = painted()
    options = {"config": SMALL, "batch_size": 8, "steps": 40, "learning_rate": 1e-2, "seed": seed}
    network = train_finder(examples, {"painted": 1.0}, tmp_path, **options)
    views = TrainingViews(examples, SMALL, seed + 1)
    batch = torch.utils.data.default_collate([views[number, number % 6] for number in range(16)])
    pixels = batch.pop("pixels")
    with torch.no_grad():
        after = detection_loss(network(pixels), batch, SMALL)
        before = detection_loss(FinderNetwork(SMALL).eval()(pixels), batch, SMALL)
    assert after < 0.8 * before
