"""Published figures: the commands that make them, their records, and the README's figures held against these."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.scripts import ROOT, script
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import evaluate
from wbc_hf.files import sha256_of_folder, write_json
from wbc_hf.provenance import describe_machine, source_commit

figures = script("scripts/figures.py")
RECORDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(figures.RECORDS.glob("*.json"))}


# ---- what the documents say


def estimates_in(document: str) -> list[str]:
    """Figures with confidence intervals as a document writes them, lines joined."""
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    return re.findall(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)|\d+\.\d % \(\d+\.\d to \d+\.\d(?: %)?\)", text)


@pytest.fixture(scope="module")
def recorded() -> set[str]:
    """All that records hold, and the metrics of the default model, which came with its weights."""
    default = {"printed": [], "metrics": json.loads((DEFAULT_MODEL_FOLDER / "metrics.json").read_text("utf-8"))}
    return {plain(text) for record in (*RECORDS.values(), default) for text in figures.estimates(record)}


def plain(estimate: str) -> str:
    """Some sentences give the sign of a percentage once."""
    return estimate.replace(" %)", ")")


def test_each_figure_of_the_readme_is_in_a_record(recorded: set[str]):
    assert not [text for text in estimates_in("README.md") if plain(text) not in recorded]


def test_the_survey_s_tables_are_what_its_command_wrote():
    text = (ROOT / "docs/survey.md").read_text(encoding="utf-8")
    assert text.endswith("\n---\n\n" + "\n".join(RECORDS["survey"]["tables"]) + "\n")


def test_the_finder_s_table_is_what_its_command_printed():
    """Rows of docs/finder.md: as many fields and cells, and the same estimates, as the record has."""
    text = (ROOT / "docs/finder.md").read_text(encoding="utf-8")
    rows = {row[0]: row for row in re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (.+?) \| (.+?) \|", text, re.M)[:3]}
    for line in RECORDS["finder"]["printed"][1:]:
        if line:
            title, fields, cells = line.split()[:3]
            assert rows[title] == (title, fields, cells, *figures.ESTIMATE.findall(line))


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_says_where_it_comes_from(name: str):
    record, figure = RECORDS[name], figures.NAMES[name]
    assert record["command"] == figure.command
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"])
    assert record["data"].keys() == set(figure.data)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in record["data"].values())
    assert record["seed"] == figure.seed
    assert record["machine"].keys() == {"processor", "cores", "gpu", "system"}
    assert bool(record.get("models")) == bool(figure.models)
    assert figures.estimates(record)


# ---- the commands


def test_commands_name_programs_that_exist_and_needed_figures():
    for figure in figures.FIGURES:
        assert figure.command.startswith("python ")
        program = figure.command.split()[1]
        assert program == "-m" or (ROOT / program).is_file()
        assert set(figure.after) <= figures.NAMES.keys()
    documented = (ROOT / "docs/figures.md").read_text(encoding="utf-8")
    assert not [
        figure.name for figure in figures.FIGURES if f"| `{figure.name}` | {figure.minutes:g} |" not in documented
    ]


def test_the_shortest_comes_first_and_after_what_it_needs():
    order = [figure.name for figure in figures.in_order(figures.FIGURES)]
    assert order[-1] == max(figures.FIGURES, key=lambda figure: figure.minutes).name
    assert order.index("selective-prediction") > order.index("pbc")
    assert figures.in_order([figures.NAMES["selective-prediction"]]) == [figures.NAMES["selective-prediction"]]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    (folder / "some").mkdir(parents=True)
    (folder / "some" / "a.txt").write_text("a")
    monkeypatch.setenv("WBC_HF_DATA", str(folder))
    return folder


def figure_of(code: str, tmp_path: Path, **more: object) -> "figures.Figure":
    (tmp_path / "program.py").write_text(code)
    command = f"python {tmp_path / 'program.py'} {figures.SHARED}/some"
    return figures.Figure(**{"name": "one", "what": "", "command": command, "minutes": 1, "data": ("some",)} | more)


def test_a_record_holds_what_was_printed_and_from_what(tmp_path: Path, data: Path, capfd: pytest.CaptureFixture):
    code = f"""import sys
print("found 0.994 (0.969 to 1.000) in", sys.argv[1])
print("Fingerprint of the data and their splits: {"5" * 64}")
"""
    path = figures.make(figure_of(code, tmp_path, seed=3), tmp_path / "records")
    record = json.loads(path.read_text())
    assert record["printed"][0] == f"found 0.994 (0.969 to 1.000) in {figures.SHARED}/some"
    assert str(data) not in path.read_text().replace(str(tmp_path / "program.py"), "")
    assert record["data"] == {"some": sha256_of_folder(data / "some")}
    assert (record["split"], record["seed"], record["machine"]) == ("5" * 64, 3, describe_machine())
    assert record["commit"] == source_commit()
    assert figures.estimates(record) == {"0.994 (0.969 to 1.000)"}
    assert "found 0.994" in capfd.readouterr().out


def test_tables_that_a_command_writes_are_recorded(tmp_path: Path, data: Path):
    tables = tmp_path / "tables.md"
    code = f"from pathlib import Path\nPath({str(tables)!r}).write_text('| ours | 0.971 (0.961 to 0.980) |\\n')"
    record = json.loads(figures.make(figure_of(code, tmp_path, tables=str(tables)), tmp_path / "records").read_text())
    assert record["tables"] == ["| ours | 0.971 (0.961 to 0.980) |"]
    assert figures.estimates(record) == {"0.971 (0.961 to 0.980)"}


def test_models_that_are_found_trained_are_told_of(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    model = tmp_path / "runs" / "without-one-0"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    write_json(model / "run.json", {"commit": "a" * 40, "finished": "2026-12-01T12:00:00+00:00"})
    made = figures.make(figure_of("", tmp_path, models="runs/without-*-0"), tmp_path / "records")
    weights = hashlib.sha256(b"weights").hexdigest()
    assert json.loads(made.read_text())["models"] == {
        "runs/without-one-0": {"weights": weights, "commit": "a" * 40, "finished": "2026-12-01T12:00:00+00:00"}
    }


def test_metrics_of_a_report_and_the_split_of_a_run_are_recorded(tmp_path: Path, data: Path):
    report = tmp_path / "report"
    report.mkdir()
    metrics = evaluate([0, 1, 2, 3], [[0.6, 0.1, 0.1, 0.1, 0.1]] * 4, statuses=["confident"] * 4).metrics
    write_json(report / "metrics.json", metrics)
    write_json(report / "run.json", {"data": {"fingerprint": "7" * 64}})
    record = json.loads(figures.make(figure_of("", tmp_path, report=str(report)), tmp_path / "records").read_text())
    assert record["split"] == "7" * 64
    low, high = metrics["intervals"]["accuracy"]
    assert {f"0.250 ({low:.3f} to {high:.3f})", "100.0 % (39.8 to 100.0 %)"} <= figures.estimates(record)


def test_what_fails_or_lacks_something_leaves_no_record(tmp_path: Path, data: Path):
    for figure, said in (
        (figure_of("raise SystemExit(3)", tmp_path), "ended with status 3"),
        (figure_of("raise SystemExit(3)", tmp_path, data=("other",)), "prepare_data.py"),
        (figure_of("raise SystemExit(3)", tmp_path, after=("pbc",)), "figures.py pbc"),
    ):
        with pytest.raises(WbcError, match=said):
            figures.make(figure, tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_it_resumes_with_what_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figures, "RECORDS", tmp_path)
    made: list[str] = []

    def make(figure: "figures.Figure", commit: str) -> Path:
        made.append(figure.name)
        write_json(tmp_path / f"{figure.name}.json", {"made": "2026-01-01T00:00:00"})
        return figures.ROOT / "docs"

    monkeypatch.setattr(figures, "make", make)
    figures.main(["overlaps"])
    figures.main(["overlaps", "finder"])
    assert made == ["overlaps", "finder"]
    figures.main(["overlaps", "--again"])
    assert made[2:] == ["overlaps"]
    figures.main(["--list"])
    assert len(made) == 3
    figures.main([])
    assert sorted(made[3:]) == sorted(figures.NAMES.keys() - {"overlaps", "finder"})


def test_made_again_the_run_of_before_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "make", lambda *_, **__: tmp_path / "record.json")
    run = tmp_path / "runs" / "pbc"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"weights")
    figures.main(["pbc", "--again"])
    (before,) = (tmp_path / "runs").iterdir()
    assert before.name.startswith("pbc-before-") and (before / "model.safetensors").read_bytes() == b"weights"


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        figures.main(["everything"])
    assert "everything is not one of default-model" in capsys.readouterr().err
