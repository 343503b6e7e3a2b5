"""For MkDocs: links from the documentation to files outside docs/ lead to the repository, where its address is known.

They work on a repository's page as they are written. On the site, which holds docs/ alone, they would lead nowhere.
"""

import re
from pathlib import PurePosixPath
from posixpath import normpath

OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)\)")


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Called by MkDocs with the text of each page."""
    folder = PurePosixPath("docs", page.file.src_uri).parent

    def lead(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = normpath(folder / target)
        if path.startswith("docs/"):
            return match[0]
        return f"[{text}]({config.repo_url}/blob/main/{path})" if config.repo_url else f"{text} (`{path}`)"

    return OUTSIDE.sub(lead, markdown)
