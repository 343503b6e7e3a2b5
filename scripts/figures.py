"""Make the published figures again: list the commands, and run those whose records are missing.

    python scripts/figures.py --list            # what there is, how long it takes, what is recorded
    python scripts/figures.py                   # run what is not recorded yet, shortest first; resumes after a stop
    python scripts/figures.py finder overlaps   # only these
    python scripts/figures.py finder --again    # although it is recorded

Each command runs as anybody would type it. What it printed, and the metrics that it wrote, go into
`docs/figures/<name>.json`, with commit, digests of the data, split, seed, machine and seconds. A test holds the
README's figures against these records. The image sets are in `../shared/data`, or where WBC_HF_DATA says; how to get
them: `python scripts/prepare_data.py`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wbc_hf.cli.shared import exit_on_error
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import format_estimate, format_table, plain_table
from wbc_hf.files import sha256_of_file, sha256_of_folder, write_json
from wbc_hf.provenance import describe_machine, source_commit

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "figures"
SHARED = "../shared/data"
# As `format_estimate` writes them.
ESTIMATE = re.compile(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)|\d+\.\d % \(\d+\.\d to \d+\.\d %\)")
_WIDTH = 119  # of the list, also where it is not printed on a terminal
FINGERPRINT = re.compile(r"^Fingerprint of the data and their splits: ([0-9a-f]{64})$")


@dataclass(frozen=True)
class Figure:
    """A command that makes published figures.

    Attributes:
        name: Of its record.
        what: What the figures are of.
        command: As one types it in the repository, `../shared/data` for the image sets. `python` is the running one.
        minutes: How long it takes on two cores with AVX512-BF16; without, up to three times as long.
        data: Folders of the image sets that it reads.
        seed: Random seed; None where nothing is drawn.
        after: Figures whose runs it needs.
        report: Folder of a report that it writes, whose `metrics.json` goes into the record; of a training also the
            fingerprint of data and splits.
        tables: Text file that it writes, whose lines go into the record.
        models: Folders of models that it trains or finds trained (a pattern): the record says which they were.
    """

    name: str
    what: str
    command: str
    minutes: float
    data: tuple[str, ...]
    seed: int | None = None
    after: tuple[str, ...] = ()
    report: str | None = None
    tables: str | None = None
    models: str | None = None


LABORATORIES = ("pbc", "bccd", "raabin", "chula_fields")
SETS = f"{SHARED}/pbc {SHARED}/bccd/crops {SHARED}/raabin {SHARED}/chula_fields"
FIGURES = (
    Figure(
        "default-model",
        "the default model on the test splits of its laboratories",
        f"python -m wbc_hf.cli evaluate models/starter {SETS} --output runs/figures/default-model",
        1.5,
        LABORATORIES,
        seed=0,
        report="runs/figures/default-model",
    ),
    Figure("overlaps", "overlapping photographs", f"python benchmarks/overlaps.py {SHARED}/bccd", 3, ("bccd",)),
    Figure(
        "near-duplicates",
        "near-duplicates that are found",
        f"python benchmarks/near_duplicates.py --data {SHARED} --growth",
        2,
        ("kaggle_augmented", "bccd", "pbc"),
    ),
    Figure(
        "leakage",
        "what near-duplicates on both sides do to a figure",
        f"python benchmarks/leakage.py {SHARED}/kaggle_augmented --seeds 3 --figure docs/images/leakage.png",
        5,
        ("kaggle_augmented",),
        seed=0,
    ),
    Figure(
        "finder",
        "leucocytes that are found in photographs held back",
        f"python benchmarks/finder.py {SHARED} --only fields",
        2,
        ("bccd", "raabin_fields", "chula_fields"),
    ),
    Figure(
        "finder-elsewhere",
        "the finder in painted fields, with artefacts, on single cells and on what is no smear",
        f"python benchmarks/finder.py {SHARED} "
        "--only painted --only artefacts --only crops --only not-smear --only time",
        1.5,
        ("bccd", "raabin_fields", "pbc", "tecom"),
    ),
    Figure(
        "pbc",
        "one laboratory, from scratch",
        f"python train.py configs/from_scratch.yaml --dataset {SHARED}/pbc --output_dir runs/pbc",
        4,
        ("pbc",),
        seed=42,
        report="runs/pbc",
    ),
    Figure(
        "selective-prediction",
        "cells and pictures that are none of the five types",
        f"python benchmarks/selective_prediction.py runs/pbc --data {SHARED}",
        0.5,
        ("pbc_other", "bccd", "tecom"),
        seed=0,
        after=("pbc",),
    ),
    Figure(
        "survey",
        "earlier systems on the same cells",
        f"python -m wbc_hf.cli survey {SHARED}/pbc --most 600 --laboratory bccd={SHARED}/bccd/crops "
        f"--laboratory tecom={SHARED}/tecom --fields {SHARED}/bccd/fields --output runs/survey",
        39,
        ("pbc", "bccd", "tecom"),
        seed=0,
        tables="runs/survey/survey.md",
    ),
    Figure(
        "unseen-laboratory",
        "laboratories that were left out of training",
        f"python benchmarks/unseen_laboratory.py --data {SHARED} --runs runs/unseen --counts 5 10 20 --draws 3",
        50,
        (*LABORATORIES, "tecom"),
        seed=0,
        models="runs/unseen/without-*-0",
    ),
)
NAMES = {figure.name: figure for figure in FIGURES}


def in_order(figures: Sequence[Figure]) -> list[Figure]:
    """The shortest first, and none before those that it needs, if these are among them."""
    minutes = {figure.name: figure.minutes for figure in figures}
    return sorted(figures, key=lambda figure: figure.minutes + sum(minutes.get(name, 0) for name in figure.after))


def make(figure: Figure, records: Path = RECORDS, commit: str | None = None) -> Path:
    """Run a command, and write its record. What it prints is shown as it comes.

    Args:
        figure: Whose command runs.
        records: Where its record goes.
        commit: Of the code; by default as it is now. Of several figures one commit: records change files, too.

    Raises:
        WbcError: A set or a record that it needs is missing, or the command fails; then nothing is written.
    """
    data = Path(os.environ.get("WBC_HF_DATA", ROOT / SHARED))
    for name in figure.data:
        if not (data / name).is_dir():
            raise WbcError(f"{figure.name}: there is no {data / name}. Make it: python scripts/prepare_data.py")
    for name in figure.after:
        if not (records / f"{name}.json").is_file():
            raise WbcError(f"{figure.name}: needs the run of {name}. Make it first: python scripts/figures.py {name}")
    commit = commit or source_commit()
    words = [word.replace(SHARED, str(data)) for word in figure.command.split()]
    started = time.monotonic()
    printed = list(_run([sys.executable if word == "python" else word for word in words], figure.name))
    record = {
        "name": figure.name,
        "command": figure.command,
        "commit": commit,
        "data": {name: sha256_of_folder(data / name) for name in figure.data},
        # Where a command draws no split, or draws it itself, it follows from commit, data and seed.
        "split": next((match[1] for line in printed if (match := FINGERPRINT.match(line))), None),
        "seed": figure.seed,
        "machine": describe_machine(),
        "seconds": round(time.monotonic() - started),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "printed": [line.replace(str(data), SHARED) for line in printed],
    }
    if figure.report:
        report = ROOT / figure.report
        record["metrics"] = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
        if (report / "run.json").is_file():
            record["split"] = json.loads((report / "run.json").read_text(encoding="utf-8"))["data"]["fingerprint"]
    if figure.tables:
        record["tables"] = (ROOT / figure.tables).read_text(encoding="utf-8").splitlines()
    if figure.models:
        record["models"] = describe_models(ROOT, figure.models)
    records.mkdir(parents=True, exist_ok=True)
    write_json(records / f"{figure.name}.json", record)
    return records / f"{figure.name}.json"


def describe_models(root: Path, pattern: str) -> dict[str, dict]:
    """SHA-256 of the weights of each trained model, the commit that it was trained by, and when."""
    found = {}
    for folder in sorted(root.glob(pattern)):
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        found[folder.relative_to(root).as_posix()] = {
            "weights": sha256_of_file(folder / "model.safetensors"),
            "commit": run["commit"],
            "finished": run["finished"],
        }
    return found


def _run(words: list[str], name: str) -> Iterator[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            yield line.rstrip("\n")
    if process.returncode:
        raise WbcError(f"{name}: {' '.join(words)} ended with status {process.returncode}.")


def estimates(record: dict) -> set[str]:
    """All figures with confidence intervals in a record, as documents write them: "0.930 (0.910 to 0.950)"."""
    lines = [*record["printed"], *record.get("tables", ())]
    found = {estimate for line in lines for estimate in ESTIMATE.findall(line)}
    if "metrics" in record:
        found |= set(_estimates_of(record["metrics"]))
    return found


def _estimates_of(figures: dict) -> Iterator[str]:
    """Of metrics as `evaluate` returns them, wherever a figure and its interval have one name."""
    intervals = figures.get("intervals", {})
    for name, value in figures.items():
        if isinstance(value, dict) and name != "intervals":
            inner = {"intervals": intervals.get(name, {})}
            yield from _estimates_of(inner | value)
        elif isinstance(value, float) and isinstance(intervals.get(name), list):
            for spec in (".3f", ".1%"):
                yield format_estimate(value, intervals[name], spec)


def print_list() -> None:
    table = plain_table("name", "minutes", "recorded")
    table.add_column("", no_wrap=True)
    for figure in in_order(FIGURES):
        path = RECORDS / f"{figure.name}.json"
        made = json.loads(path.read_text(encoding="utf-8"))["made"][:10] if path.is_file() else "–"
        table.add_row(figure.name, f"{figure.minutes:g}", made, figure.what)
    print(format_table(table, width=_WIDTH))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Only these: {', '.join(NAMES)}.")
    parser.add_argument("--list", action="store_true", help="Print what there is, and run nothing.")
    parser.add_argument("--again", action="store_true", help="Also what is recorded.")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"{unknown[0]} is not one of {', '.join(NAMES)}")
    print_list()
    if arguments.list:
        return
    commit = source_commit()
    with exit_on_error("figures.py"):
        for figure in in_order([NAMES[name] for name in arguments.names] or FIGURES):
            if arguments.again or not (RECORDS / f"{figure.name}.json").is_file():
                if arguments.again and figure.report and (before := ROOT / figure.report).exists():
                    # A training is not repeated in its folder; and what was measured is not thrown away.
                    before.rename(before.with_name(f"{before.name}-before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
                print(
                    f"\n{figure.name}: about {figure.minutes:g} minutes on two cores\n$ {figure.command}", flush=True
                )
                print(f"recorded in {make(figure, commit=commit).relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
