from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.conftest import Command
from wbc_hf.data import Leucocytes, load_leucocytes
from wbc_hf.modeling import FREEZE_DEPTHS, Normalise, build_from_scratch
from wbc_hf.training import build_network, build_trainer, parse
from wbc_hf.training.sampling import balanced_weights
from wbc_hf.training.trainer import LeucocyteTrainer, summed_loss
from wbc_hf.training.transforms import EvaluationTransform, TrainingTransform, row_numbers

BLOCKS = ["resnet.embedder.", *(f"resnet.encoder.stages.{stage}." for stage in range(4)), "classifier."]
TrainerFactory = Callable[..., LeucocyteTrainer]


@pytest.fixture(scope="module")
def leucocytes(folder_of_cells: Path) -> Leucocytes:
    return load_leucocytes(folder_of_cells)


@pytest.fixture
def make_trainer(command: Command, leucocytes: Leucocytes, tmp_path: Path) -> TrainerFactory:
    """`make_trainer(freeze="all", max_steps=2)`: a trainer that neither evaluates nor saves and logs every step."""
    quiet = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "report_to": "none"}

    def make(rows: Leucocytes = leucocytes, **changes: object) -> LeucocyteTrainer:
        words = command(tmp_path, **(quiet | {"logging_steps": 1, "lr_scheduler_type": "constant"} | changes))
        data, model, training = parse(words)
        return build_trainer(rows, *build_network(model, training), data, training)

    return make


def weights(trainer: LeucocyteTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def losses(trainer: LeucocyteTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("depth", FREEZE_DEPTHS)
def test_frozen_layers_keep_weights_and_statistics(make_trainer: TrainerFactory, depth: str):
    trainer = make_trainer(freeze=depth, max_steps=2)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)

    frozen = tuple(BLOCKS[: FREEZE_DEPTHS.index(depth)]) if depth != "all" else tuple(BLOCKS[:-1])
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if name.startswith(frozen)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for block in BLOCKS:
        if not block.startswith(frozen):
            names = [name for name in before if name.startswith(block)]
            assert [name for name in names if name in moved and not name.endswith(statistics)], block
            assert not [name for name in names if name not in moved and name.endswith(statistics)], block


@pytest.mark.parametrize("changes", [{}, {"class_weights": "balanced", "label_smoothing_factor": 0.2}])
def test_a_step_in_parts_is_the_same_step(make_trainer: TrainerFactory, changes: dict):
    """Augmentation is on; batch norm is frozen, since its statistics do depend on how a step is cut."""
    whole = make_trainer(freeze="stage4", max_steps=3, per_device_train_batch_size=8, **changes)
    parts = make_trainer(
        freeze="stage4", max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=4, **changes
    )
    whole.train()
    parts.train()

    assert losses(whole) == pytest.approx(losses(parts), abs=1e-5)
    assert len(set(losses(whole))) == 3
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, weights(parts)[name], atol=1e-5, rtol=1e-4)


def test_trainer_without_the_cure_multiplies_the_loss(make_trainer: TrainerFactory):
    """What `summed_loss` is there for: with ResNet's own loss, four parts count four times."""
    found = []
    for batch, parts in ((8, 1), (2, 4)):
        trainer = make_trainer(
            freeze="all",
            max_steps=1,
            label_smoothing_factor=0,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=parts,
        )
        trainer.compute_loss_func = None
        trainer.train()
        found += losses(trainer)
    assert found[1] / found[0] == pytest.approx(4, rel=0.01)


def test_summed_loss():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(8, 5, generator=generator), torch.arange(8) % 5
    mean = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert summed_loss({"logits": logits}, labels, label_smoothing=0.1).item() == pytest.approx(mean.item())
    halves = [summed_loss({"logits": logits[part]}, labels[part], 8) for part in (slice(4), slice(4, 8))]
    assert sum(halves).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    half = summed_loss({"logits": logits.bfloat16()}, labels)
    assert half.dtype == torch.float32


def test_a_rare_class_counts_more():
    logits, labels = torch.zeros(4, 5), torch.tensor([0, 0, 0, 1])
    logits[:, 0] = 2.0
    plain = summed_loss({"logits": logits}, labels)
    weighted = summed_loss({"logits": logits}, labels, weights=torch.tensor(balanced_weights([0, 0, 0, 1], 5)))
    each = F.cross_entropy(logits, labels, reduction="none")
    assert weighted > plain
    assert weighted.item() == pytest.approx((each[0] / 2 + each[3] / 2).item())


def test_class_weights_are_counted_on_the_training_images(make_trainer: TrainerFactory, leucocytes: Leucocytes):
    rare = Leucocytes(leucocytes)
    labels = np.array(leucocytes["train"]["label"])
    rare["train"] = leucocytes["train"].select(np.flatnonzero((labels != 0) | (np.cumsum(labels == 0) == 1)))
    training = make_trainer().args
    training.class_weights = "balanced"
    network, processor = build_from_scratch(1 / 16, image_size=32)
    trainer = build_trainer(rare, network, processor, parse([])[0], training)
    found = trainer.compute_loss_func.keywords["weights"]
    assert found[0] > 3 * found[1]


@pytest.mark.parametrize("size", [(90, 90), (50, 200), (203, 61), (17, 16)])
def test_training_and_evaluation_see_the_same_part_of_an_image(size: tuple[int, int]):
    """Without augmentation they differ by how they resample, no more."""
    _, processor = build_from_scratch(1 / 16, image_size=56)
    row, column = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([255 * row / size[1], 255 * column / size[0], (row + column) % 128], axis=2).astype(np.uint8)
    rows = {"image": [Image.fromarray(pixels)], "labels": [0], "label": [0], "source": ["a"]}

    square = TrainingTransform(edge=64)(rows)["pixels"][0]
    assert square.shape == (3, 64, 64)
    assert square.dtype == torch.uint8
    normalise = Normalise(processor)
    (trained_on,) = normalise(square[None, :, 4:60, 4:60])
    crop = EvaluationTransform(processor)(rows)["crops"][0]
    assert crop.dtype == torch.uint8
    (evaluated_on,) = normalise(crop[None])
    torch.testing.assert_close(evaluated_on, processor(rows["image"], return_tensors="pt").pixel_values[0])
    assert evaluated_on.shape == (3, 56, 56)
    assert (trained_on - evaluated_on)[:2].abs().mean() < 0.05  # 1.2 grey levels; the third channel is mere texture


def test_augmentation_hangs_on_image_and_step_alone(make_trainer: TrainerFactory, leucocytes: Leucocytes):
    trainer = make_trainer()
    rows = trainer.train_dataset[:6]
    batch = {"pixels": torch.stack(rows["pixels"]), "index": torch.tensor(rows["index"])}
    together = trainer._augmented(batch)
    alone = trainer._augmented({name: values[4:5] for name, values in batch.items()})
    torch.testing.assert_close(together[4:5], alone, atol=1e-5, rtol=0)
    trainer.state.global_step = 1
    assert (trainer._augmented(batch) - together).abs().mean() > 0.1


def uneven(leucocytes: Leucocytes) -> Leucocytes:
    """All but two of the basophils are left out of training."""
    fewer = Leucocytes(leucocytes)
    labels = np.array(leucocytes["train"]["label"])
    fewer["train"] = leucocytes["train"].select(np.flatnonzero((labels != 0) | (np.cumsum(labels == 0) <= 2)))
    return fewer


def test_balance_draws_a_rare_class_more_often(make_trainer: TrainerFactory, leucocytes: Leucocytes):
    rows = uneven(leucocytes)["train"]
    drawn = []
    for balance in (0, 1):
        trainer = make_trainer(uneven(leucocytes), balance=balance)
        drawn.append([row for batch in trainer.get_train_dataloader() for row in batch["index"].tolist()])
    rare = set(row_numbers([row["source"] for row in rows if row["label"] == 0]))
    assert [len(each) for each in drawn] == [len(rows)] * 2
    assert [sum(row in rare for row in each) for each in drawn] == [2, pytest.approx(len(rows) / 5, abs=2)]


@pytest.mark.slow
def test_a_resumed_run_draws_what_it_would_have_drawn(
    make_trainer: TrainerFactory, leucocytes: Leucocytes, tmp_path: Path
):
    changes = {"balance": 0.5, "max_steps": 8, "save_strategy": "steps", "save_steps": 7}
    whole, resumed = (make_trainer(uneven(leucocytes), **changes) for _ in range(2))
    whole.train()
    # The seventh step lies in the middle of the second epoch.
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
