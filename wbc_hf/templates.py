"""Templates of the package's folders, by jinja2."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def load_templates(package: str, **options: Any) -> Environment:
    """Make the environment of the templates of a folder of the package.

    What is put into HTML is escaped, a name that is not given is an error, and a line that holds a block alone leaves
    none.

    Args:
        package: Name of the folder, such as "wbc_hf.web"; its templates are in `templates/`.
        options: Further ones of jinja2's `Environment`.
    """
    return Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(("html", "html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
