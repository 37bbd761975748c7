"""What `mkdocs build --strict` checks beyond mkdocs itself: docstrings, and links to files outside docs/.

- Every name that a page documents (``::: yololoss.ciou``) has a docstring, and so has every public member of it.
- Every name in ``yololoss.__all__`` is documented by a page.
- A link to a file of the repository outside docs/ leads to a file. GitHub shows it as a link; the site, which has no
  such file, shows its path instead.
"""

import logging
import re
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
PACKAGE = "yololoss"
log = logging.getLogger("mkdocs.hooks")  # --strict fails on a warning
documented: set[str] = set()


def on_pre_build(**_: Any) -> None:
    """Nothing is documented yet."""
    documented.clear()


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Note which names the page documents, and show paths in place of links out of docs/."""
    documented.update(re.findall(r"^::: (\S+)$", markdown, re.MULTILINE))
    folder = Path(page.file.abs_src_path).parent

    def shown(link: re.Match[str]) -> str:
        text, target = link[1], (folder / link[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return link[0]
        if not (target.is_relative_to(ROOT) and target.exists()):
            log.warning("%s: %s is no file of the repository", page.file.src_uri, link[2])
        path = f"`{target.relative_to(ROOT)}`" if target.is_relative_to(ROOT) else link[2]
        return path if text.strip("`") in path else f"{text} ({path})"

    return re.sub(r"(?<!!)\[([^\]\n]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)", shown, markdown)


def on_post_build(**_: Any) -> None:
    """Warn of public names that no page documents, and of documented ones that have no docstring."""
    package = griffe.load(PACKAGE, search_paths=[ROOT])
    for name in sorted({f"{PACKAGE}.{name}" for name in package.exports or ()} - documented):
        log.warning("%s is public, and no page documents it", name)
    for name in sorted(documented):
        found = package[name.removeprefix(f"{PACKAGE}.")]
        members = found.members.values() if found.is_class else ()
        for each in (found, *filter(_is_public, members)):
            if each.docstring is None:
                log.warning("%s has no docstring", each.path)


def _is_public(member: griffe.Object | griffe.Alias) -> bool:
    """Whether a user may call it, and it is more than another form of a method that has a docstring."""
    called = member.is_function or member.is_class or "property" in member.labels
    overrides = any(each.callable_path.endswith("override") for each in getattr(member, "decorators", ()))
    return called and not member.name.startswith("_") and not overrides
