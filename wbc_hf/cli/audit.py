"""`wbc-hf audit`: check a data set before a figure measured on it is believed."""

import json
from pathlib import Path
from typing import Annotated

import typer


def audit(
    specs: Annotated[
        list[str],
        typer.Argument(help="A folder, kaggle:owner/name, or the id of a data set on the Hub; several together."),
    ],
    output: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.html.")] = None,
    resplit: Annotated[Path | None, typer.Option(help="New folder for a clean split of the files.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
) -> None:
    """Audit a data set: near-duplicates, contradictory labels, bad images, classes too small to evaluate.

    Nothing is written into the set itself.

        wbc-hf audit cells/ --output audit/ --resplit clean/
    """
    import dataclasses

    from wbc_hf.data import audit as audit_set
    from wbc_hf.data import check_new_folder, format_audit, load_leucocytes, write_audit_page, write_clean_split

    if resplit is not None:
        check_new_folder(resplit)
    leucocytes = load_leucocytes(specs, seed=seed)
    found = audit_set(leucocytes)
    print(format_audit(found))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        content = json.dumps(dataclasses.asdict(found), indent=2, ensure_ascii=False)
        (output / "audit.json").write_text(content + "\n", encoding="utf-8")
        write_audit_page(found, leucocytes, output / "audit.html")
    if resplit is not None:
        write_clean_split(leucocytes, resplit, seed)
