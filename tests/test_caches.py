"""Caches: what is computed once equals what would be computed in every step."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from tests.conftest import Command
from wbc_hf.data import Augmentation, Leucocytes, load_leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.modeling import FREEZE_DEPTHS
from wbc_hf.training import build_caches, build_network, build_trainer, parse
from wbc_hf.training.caches import FrozenLayers, cache_frozen_layers, cache_images
from wbc_hf.training.trainer import LeucocyteTrainer

EDGE = 36  # of training images, in pixels

FROZEN = FREEZE_DEPTHS[1:]


@pytest.fixture(scope="module")
def leucocytes(folder_of_cells: Path) -> Leucocytes:
    return load_leucocytes(folder_of_cells)


def trained(
    command: Command,
    leucocytes: Leucocytes,
    folder: Path,
    *,
    cached: bool,
    resume_from: Path | None = None,
    **changes: object,
) -> LeucocyteTrainer:
    """A trainer after its three epochs, with caches or reading image by image."""
    quiet = {"save_strategy": "no", "load_best_model_at_end": False, "report_to": "none", "logging_steps": 1}
    data, model, training = parse(command(folder, **(quiet | changes)))
    network, processor = build_network(model, training)
    caches = build_caches(leucocytes, network, processor, data, model, training) if cached else None
    trainer = build_trainer(leucocytes, network, processor, data, training, caches)
    trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
    return trainer


def losses(trainer: LeucocyteTrainer, name: str = "loss") -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_decoded_once_or_in_every_epoch(command: Command, leucocytes: Leucocytes, tmp_path: Path):
    """Augmentation is on: it depends on image and step alone, wherever the pixels come from."""
    once, every = (
        trained(command, leucocytes, tmp_path / name, cached=name == "once", freeze="none")
        for name in ("once", "every")
    )
    assert losses(once) == losses(every)
    assert losses(once, "eval_loss") == losses(every, "eval_loss")
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "once" / "cache").iterdir()) == [
        "crops",
        "pixels",
    ]


@pytest.mark.parametrize("depth", FROZEN)
def test_without_augmentation_cached_frozen_layers_are_exact(
    command: Command, leucocytes: Leucocytes, tmp_path: Path, depth: str
):
    """But for rounding, since convolutions add up in another order for another number of images."""
    changes = {"freeze": depth, "augmentation": 0, "learning_rate": 1e-4}
    cached = trained(command, leucocytes, tmp_path / "a", cached=True, cached_views=1, **changes)
    plain = trained(command, leucocytes, tmp_path / "b", cached=False, **changes)
    assert losses(cached)[0] == pytest.approx(losses(plain)[0], abs=2e-5)
    assert losses(cached) == pytest.approx(losses(plain), abs=2e-3)
    assert losses(cached, "eval_loss") == pytest.approx(losses(plain, "eval_loss"), abs=2e-3)
    assert len(set(losses(cached))) > 10
    frozen = [name for name, parameter in plain.model.named_parameters() if not parameter.requires_grad]
    assert frozen
    for name in frozen:
        assert torch.equal(cached.model.get_parameter(name), plain.model.get_parameter(name)), name


def test_cached_frozen_layers_are_computed_in_the_precision_of_the_run(
    command: Command, leucocytes: Leucocytes, tmp_path: Path
):
    changes = {"freeze": "stage2", "augmentation": 0, "precision": "bf16"}
    cached = trained(command, leucocytes, tmp_path / "a", cached=True, cached_views=1, **changes)
    plain = trained(command, leucocytes, tmp_path / "b", cached=False, **changes)
    assert cached.train_dataset.__getitems__([0])["hidden"].dtype is torch.bfloat16
    assert losses(cached) == pytest.approx(losses(plain), abs=0.05)


def test_each_epoch_shows_the_next_view(command: Command, leucocytes: Leucocytes, tmp_path: Path):
    trainer = trained(command, leucocytes, tmp_path, cached=True, freeze="stage4", cached_views=3)
    rows = trainer.train_dataset
    assert rows.shape[1] == 3
    assert rows.view == 2  # of the third epoch
    first, again = rows.__getitems__([3, 7]), rows.__getitems__([3, 7])
    rows.start_epoch(1)
    other = rows.__getitems__([3, 7])
    assert torch.equal(first["hidden"], again["hidden"])
    assert not torch.equal(first["hidden"], other["hidden"])
    assert torch.equal(first["labels"], other["labels"])
    assert first["hidden"].shape == (2, network_channels(trainer), 1, 1)


def test_a_resumed_run_sees_the_views_it_would_have_seen(command: Command, leucocytes: Leucocytes, tmp_path: Path):
    changes = {"freeze": "stage4", "cached_views": 3, "save_strategy": "epoch", "save_total_limit": 3}
    whole = trained(command, leucocytes, tmp_path, cached=True, **changes)
    again = trained(command, leucocytes, tmp_path, cached=True, resume_from=tmp_path / "checkpoint-5", **changes)
    assert losses(again) == losses(whole)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def network_channels(trainer: LeucocyteTrainer) -> int:
    return trainer.model.config.hidden_sizes[-1]


def test_a_cache_is_reused_for_the_same_images_and_weights_alone(
    command: Command, leucocytes: Leucocytes, tmp_path: Path
):
    _, model, training = parse(command(tmp_path, freeze="stage3"))
    network, processor = build_network(model, training)
    layers = FrozenLayers(network, processor, "stage3", torch.device("cpu"), torch.float32)
    augmentation = Augmentation(32, 1.0)

    def made(
        layers: FrozenLayers = layers, augmentation: Augmentation = augmentation, views: int = 1, seed: int = 0
    ) -> Path:
        return cache_frozen_layers(
            leucocytes, layers, augmentation, EDGE, tmp_path / "cache", views=views, seed=seed
        ).train.path

    first = made()
    written = first.stat().st_mtime_ns
    assert made() == first
    assert first.stat().st_mtime_ns == written
    with torch.no_grad():
        network.resnet.encoder.stages[0].layers[0].layer[0].convolution.weight.mul_(1.5)
    others = {
        made(),
        made(augmentation=Augmentation(32, 0.5)),
        made(views=2),
        made(seed=1),
        made(FrozenLayers(network, processor, "stage2", torch.device("cpu"), torch.float32)),
    }
    assert len(others | {first}) == 6


def test_an_incomplete_file_is_made_again(
    command: Command, leucocytes: Leucocytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, model, training = parse(command(tmp_path))
    _, processor = build_network(model, training)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", stop)
        patch.setattr(Path, "unlink", stop)  # as a kill does, which leaves no time to clean up
        with pytest.raises(KeyboardInterrupt):
            cache_images(leucocytes, processor, EDGE, cache)
    assert [path.suffix for path in cache.iterdir()] == [".tmp"]  # incomplete
    caches = cache_images(leucocytes, processor, EDGE, cache)
    assert len(caches.train) == len(leucocytes["train"])
    assert {path.suffix for path in cache.iterdir()} == {".npy"}


def test_other_names_for_the_same_images(command: Command, folder_of_cells: Path, tmp_path: Path):
    """The same content in another order: the cache would meet the labels of other rows."""
    _, model, training = parse(command(tmp_path))
    _, processor = build_network(model, training)
    cells = tmp_path / "cells"
    shutil.copytree(folder_of_cells, cells)
    before = cache_images(
        load_leucocytes(tmp_path / "cells", near_duplicates=False), processor, EDGE, tmp_path / "cache"
    )
    (first, *_) = sorted((cells / "basophil").iterdir())
    first.rename(first.with_name("zzz.png"))
    after = cache_images(
        load_leucocytes(tmp_path / "cells", near_duplicates=False), processor, EDGE, tmp_path / "cache"
    )
    assert after.train.path != before.train.path


def test_a_disk_that_fills_up_meanwhile(
    command: Command, leucocytes: Leucocytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, model, training = parse(command(tmp_path))
    _, processor = build_network(model, training)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WbcError, match=r"cannot be kept there \(No space left on device\)"):
        cache_images(leucocytes, processor, EDGE, tmp_path / "cache")


def test_a_run_without_room_leaves_its_folder_free(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
    with pytest.raises(SystemExit):
        train.main(command(tmp_path / "run", freeze="stage3", cached_views=3))
    assert not (tmp_path / "run" / "arguments.json").exists()


def test_a_disk_without_room(
    command: Command,
    leucocytes: Leucocytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    data, model, training = parse(command(tmp_path, freeze="stage3", cached_views=3))
    network, processor = build_network(model, training)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
    with pytest.raises(WbcError, match=r"--cached_views 3: takes .* GB in .*cache, where 0\.0 GB are free"):
        build_caches(leucocytes, network, processor, data, model, training)
    assert cache_images(leucocytes, processor, EDGE, tmp_path / "cache") is None
    assert "Images are decoded in every epoch" in caplog.text


def test_rows_are_stored_in_order(command: Command, leucocytes: Leucocytes, tmp_path: Path):
    _, model, training = parse(command(tmp_path))
    _, processor = build_network(model, training)
    caches = cache_images(leucocytes, processor, EDGE, tmp_path / "cache")
    batch = caches.validation.__getitems__([5, 0, 2])
    expected = processor([leucocytes["validation"][index]["image"] for index in (5, 0, 2)], return_tensors="pt")
    shown = (batch["crops"].float() / 255 - torch.tensor(processor.image_mean).view(3, 1, 1)) / torch.tensor(
        processor.image_std
    ).view(3, 1, 1)
    torch.testing.assert_close(shown, expected.pixel_values, atol=1e-5, rtol=0)
    assert batch["labels"].tolist() == [leucocytes["validation"][index]["label"] for index in (5, 0, 2)]
    assert np.load(caches.train.path, mmap_mode="r").dtype == np.uint8
