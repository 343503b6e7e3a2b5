"""The loopback Hub holds up against the libraries themselves: data sets load, models load, and wrong calls fail."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from PIL import Image

from tests.loopback_hub import TOKEN, LoopbackHub, hub_environment


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def parquet(shades: list[int]) -> bytes:
    images = [{"bytes": png(shade), "path": f"{shade}.png"} for shade in shades]
    table = pa.table({"image": images, "label": pa.array([shade % 2 for shade in shades])})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def run_python(code: str, hub: LoopbackHub, tmp_path: Path) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=hub_environment(hub, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.long  # what loads sets and models through it is tested by those that do
@pytest.mark.slow
def test_data_sets_load_whole_and_streaming(tmp_path: Path):
    with LoopbackHub() as hub:
        card = b"---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n"
        hub.add_repo("me/cells", {"README.md": card, "data/train-0.parquet": parquet([10, 20, 31])}, "dataset")
        folders = {f"{split}/{name}/{shade}.png": png(shade) for split, name, shade in IMAGE_FOLDER}
        hub.add_repo("me/photographs", folders, "dataset")
        printed = run_python(
            """
            from datasets import Image, load_dataset

            def shades(rows):
                return sorted(row["image"].getpixel((0, 0))[0] for row in rows)

            for streaming in (False, True):
                cells = load_dataset("me/cells", split="train", streaming=streaming)
                print("cells", streaming, shades(cells.cast_column("image", Image())))
                photographs = load_dataset("me/photographs", streaming=streaming)
                print("photographs", streaming, {split: shades(rows) for split, rows in photographs.items()})
                print(photographs["train"].features["label"].names)
            """,
            hub,
            tmp_path,
        )
    expected = []
    for streaming in (False, True):
        expected.append(f"cells {streaming} [10, 20, 31]")
        expected.append(f"photographs {streaming} {{'train': [40, 50], 'test': [60]}}")
        expected.append("['eosinophil', 'monocyte']")
    assert printed.splitlines() == expected


IMAGE_FOLDER = [("train", "monocyte", 40), ("train", "eosinophil", 50), ("test", "monocyte", 60)]


@pytest.mark.long  # what loads sets and models through it is tested by those that do
@pytest.mark.slow
def test_models_load_by_pipeline(tmp_path: Path):
    with LoopbackHub() as hub:
        printed = run_python(
            """
            from huggingface_hub import HfApi
            from PIL import Image
            from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification, pipeline

            config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 4], depths=[1, 1], num_labels=5)
            ResNetForImageClassification(config).save_pretrained("model")
            ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=1.0).save_pretrained("model")
            api = HfApi()
            api.create_repo("me/name")
            api.upload_folder(folder_path="model", repo_id="me/name")
            answers = pipeline("image-classification", model="me/name", top_k=5)(Image.new("RGB", (40, 40)))
            print(sorted(answer["label"] for answer in answers))
            """.replace('"model"', repr(str(tmp_path / "model"))),
            hub,
            tmp_path,
        )
        assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(hub.files("me/name"))
    assert printed.splitlines()[-1] == "['LABEL_0', 'LABEL_1', 'LABEL_2', 'LABEL_3', 'LABEL_4']"


def test_spaces_are_written_beside_models_of_the_same_name(hub: LoopbackHub):
    api = HfApi()
    for repo_type in ("model", "space"):
        api.create_repo("me/name", repo_type=repo_type, space_sdk="gradio" if repo_type == "space" else None)
        api.upload_file(
            path_or_fileobj=repo_type.encode(), path_in_repo="a.txt", repo_id="me/name", repo_type=repo_type
        )
    assert hub.files("me/name") == {"a.txt": b"model"}
    assert hub.files("me/name", "space") == {"a.txt": b"space"}


def test_what_is_not_there_has_its_own_error(hub: LoopbackHub):
    hub.add_repo("me/name", {"a.txt": b"a"})
    hub.add_repo("me/secret", private=True)
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("me/other")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=False).model_info("me/secret")
    assert HfApi(token=TOKEN).model_info("me/secret").private
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info("me/name", revision="v2")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(token="hf_wrong").create_repo("me/mine")


@pytest.mark.parametrize(
    "front_matter",
    ["license: free-beer", "tags: blood", "model-index:\n- name: a\n  results:\n  - task: {type: b}\n    dataset: {}"],
)
def test_bad_cards_are_refused(hub: LoopbackHub, front_matter: str):
    # Posted as it is: ModelCard puts some faults right before it asks.
    asked = {"repoType": "model", "content": f"---\n{front_matter}\n---\n"}
    answer = get_session().post(f"{hub.endpoint}/api/validate-yaml", json=asked)
    assert answer.status_code == 400
    assert "must be" in answer.text or "is required" in answer.text
