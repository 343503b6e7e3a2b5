"""Conduct a survey: run its systems, and write its tables and its plot."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from wbc_hf.data import load_leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.files import write_json
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.safe_text import say
from wbc_hf.survey.detectors import DetectorRow, score_detectors
from wbc_hf.survey.running import HOME, Plan, claim, finished_rows, run_in_process
from wbc_hf.survey.systems import SYSTEMS
from wbc_hf.survey.tables import plot, render

TABLES_FILE, PLOT_FILE, DETECTORS_FILE = "survey.md", "survey.png", "detectors.json"
_DOTS_PER_INCH = 160


def conduct(plan: Plan, names: Sequence[str], fields: Path | None, folder: Path) -> list[str]:
    """Run systems, print the accuracy of each, and write tables and plot of all that are finished.

    Args:
        plan: What the systems have in common.
        names: Names of systems; an empty sequence means all.
        fields: Boxed photographs to score the detectors on, if any; earlier scores are kept.
        folder: Folder of the survey.

    Returns:
        Names of systems that failed; their processes have printed why.

    Raises:
        WbcError: An unknown system, a set that is missing or lacks a class, or a folder that cannot be used.
    """
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown:
        raise WbcError(f"--system {unknown[0]}: is not one of {', '.join(SYSTEMS)}. --fields scores the detectors.")
    home = _load(plan, folder)
    if fields is not None and not (folder / DETECTORS_FILE).exists():
        rows = score_detectors(fields)
        write_json(folder / DETECTORS_FILE, [dataclasses.asdict(row) for row in rows])

    chosen = [name for name in SYSTEMS if not names or name in names]
    failed: list[str] = []
    for number, name in enumerate(chosen, start=1):
        say(f"[{number}/{len(chosen)}] {SYSTEMS[name].title}", flush=True)
        row = run_in_process(folder, name)
        if row is None:
            failed.append(name)
            continue
        _write(folder, home)
        accuracies = ", ".join(f"{set_name} {report['accuracy']:.3f}" for set_name, report in row.reports.items())
        say(f"  {name}: accuracy {accuracies}; fitted in {row.seconds:.0f} s", flush=True)
    if (folder / TABLES_FILE).exists():
        say(f"Tables: {folder / TABLES_FILE}; plot: {folder / PLOT_FILE}")
    return failed


def _load(plan: Plan, folder: Path) -> str:
    """Load all sets once and claim the folder; return the title of the training set.

    Errors in a set show before anything is run, and the systems' processes find its near-duplicates in the cache.
    """
    home = load_leucocytes(plan.spec, seed=plan.seed)
    missing = [name for index, name in enumerate(CLASS_NAMES) if index not in set(home["train"]["label"])]
    if missing:
        raise WbcError(f"{plan.spec}: has no {', '.join(missing)} to train on; a survey needs all five classes.")
    fingerprints = {HOME: home.provenance.fingerprint}
    for name, spec in plan.laboratories:
        fingerprints[name] = load_leucocytes(spec, seed=plan.seed).provenance.fingerprint
        if fingerprints[name] == fingerprints[HOME]:
            raise WbcError(f"--laboratory {name}: holds the training cells. Name another set, or leave it out.")
    claim(folder, plan, fingerprints)
    return home.provenance.title


def _write(folder: Path, home: str) -> None:
    """Write tables and plot of all finished systems."""
    rows, detectors = finished_rows(folder), []
    if (folder / DETECTORS_FILE).exists():
        scored = json.loads((folder / DETECTORS_FILE).read_text(encoding="utf-8"))
        detectors = [DetectorRow(**row) for row in scored]
    (folder / TABLES_FILE).write_text(render(rows, detectors, home), encoding="utf-8")
    plot(rows, home).savefig(folder / PLOT_FILE, dpi=_DOTS_PER_INCH)
