"""`wbc-hf survey`, from its arguments to its tables."""

import csv
from collections.abc import Sequence
from pathlib import Path

from wbc_hf.data import load_leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.survey.detectors import DetectorRow, score_detectors
from wbc_hf.survey.running import Plan, Row, finished_rows, run_survey
from wbc_hf.survey.systems import SYSTEMS
from wbc_hf.survey.tables import plot, render

TABLES_FILE, PLOT_FILE, BOXES_FILE = "survey.md", "survey.png", "boxes.csv"
_DOTS_PER_INCH = 160


def conduct(plan: Plan, names: Sequence[str], folder: Path) -> list[str]:
    """Run systems, say how each did, and write tables and plot of all that are done.

    Args:
        plan: What they have in common.
        names: Of systems; none means all.
        folder: Of the survey.

    Returns:
        Names of those that failed; their processes have said why.

    Raises:
        WbcError: No such system, no such set, or a folder that cannot be used.
    """
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown:
        raise WbcError(f"--system {unknown[0]}: is none of {', '.join(SYSTEMS)}.")
    # Here, so that what is wrong with a set is said once; the processes find its copies already looked for.
    home = load_leucocytes(plan.spec, seed=plan.seed).provenance.title
    for _, spec in plan.laboratories:
        load_leucocytes(spec, seed=plan.seed)

    detectors = score_detectors(Path(plan.fields)) if plan.fields else []
    chosen = [name for name in SYSTEMS if not names or name in names]
    failed: list[str] = []
    for number, result in enumerate(run_survey(plan, chosen, folder), start=1):
        at = f"[{number}/{len(chosen)}]"
        if isinstance(result, Row):
            _write(folder, home, detectors)
            accuracies = ", ".join(f"{name} {report['accuracy']:.3f}" for name, report in result.reports.items())
            print(f"{at} {result.name}: accuracy {accuracies}; fitted in {result.seconds:.0f} s", flush=True)
        else:
            failed.append(result)
            print(f"{at} {result}: failed", flush=True)
    if finished_rows(folder):
        print(f"Tables: {folder / TABLES_FILE}; plot: {folder / PLOT_FILE}")
    return failed


def _write(folder: Path, home: str, detectors: Sequence[DetectorRow]) -> None:
    """Tables and plot of all that is done."""
    rows = finished_rows(folder)
    (folder / TABLES_FILE).write_text(render(rows, detectors, home), encoding="utf-8")
    plot(rows, home).savefig(folder / PLOT_FILE, dpi=_DOTS_PER_INCH)
    if detectors:
        _write_boxes(folder / BOXES_FILE, detectors)


def _write_boxes(path: Path, detectors: Sequence[DetectorRow]) -> None:
    """What the detectors found, in pixels of the photographs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["detector", "photograph", "x0", "y0", "x1", "y1"])
        for row in detectors:
            writer.writerows([row.name, name, *box] for name, boxes in row.boxes.items() for box in boxes)
