"""Make the default model, models/starter, from a finished run: its published files, in half precision, with credits.

    python models/make_starter.py runs/starter

The commands of the run stand in configs/starter.yaml.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.hub import UNNAMED_MODEL
from wbc_hf.hub.publishing import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, list_published

CREDITS = """
## Credits

This folder holds no image of the sets that it was trained on and measured with:

- PBC: Acevedo, A., Merino, A., Alférez, S., Molina, Á., Boldú, L., Rodellar, J.: A dataset of microscopic peripheral
  blood cell images for development of automatic recognition systems. Data in Brief 30 (2020) 105474,
  [doi 10.17632/snkd93bnjr.1](https://doi.org/10.17632/snkd93bnjr.1), CC BY 4.0.
- BCCD: [Shenggan/BCCD_Dataset](https://github.com/Shenggan/BCCD_Dataset), MIT.
- Raabin-WBC: Kouzehkanan, Z. M. et al.: A large dataset of white blood cells containing cell locations and types,
  along with segmented nuclei and cytoplasm. Scientific Reports 12 (2022) 1123,
  [doi 10.1038/s41598-021-04426-x](https://doi.org/10.1038/s41598-021-04426-x), free for research.
- Chulalongkorn University: [singgihbekti/WBC_Dataset](https://github.com/singgihbekti/WBC_Dataset), MIT.

The painted cells that were trained on as well are the project's own. Training started from weights of Yahoo's
open_nsfw (2016), BSD-2-Clause: see `NOTICE`.

The weights are stored in half precision and computed in single. How accurate the model is in laboratories that it has
not seen stands in the project's `docs/unseen-laboratory.md`.
"""


def make_starter(run: Path, target: Path) -> None:
    """Copy the published files of a run, with weights in float16 that load as float32, and a card of its own."""
    names = list_published(run)
    config = json.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))
    if config["dtype"] != "float32":
        raise SystemExit(f"{run}: its weights are {config['dtype']}; float32 is needed, as training saves them.")
    shutil.rmtree(target, ignore_errors=True)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, target / name)
    # The counters of batch normalisation are integers, and stay.
    weights = {
        name: value.half() if value.dtype == torch.float32 else value
        for name, value in load_file(run / WEIGHTS_FILE).items()
    }
    save_file(weights, target / WEIGHTS_FILE, metadata={"format": "pt"})
    card = (run / CARD_FILE).read_text(encoding="utf-8").replace(UNNAMED_MODEL, "models/starter")
    (target / CARD_FILE).write_text(card.rstrip() + "\n" + CREDITS, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Folder of a finished run.")
    parser.add_argument("--output", type=Path, default=DEFAULT_MODEL_FOLDER, help="Folder to replace.")
    arguments = parser.parse_args()
    make_starter(arguments.run, arguments.output)


if __name__ == "__main__":
    main()
