"""Check the built pages of the book: ``python book/check.py <html folder>``.

The build stops at a missing reference, citation or equation. It does not stop at a link to a file
that is not there, at a picture without a description, at something fetched from the network, or at
a traceback in the output of a notebook. This does: all problems are printed, and one is enough for
an exit status of 1.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements that a browser loads by itself; a plain link waits for a click and may go anywhere.
SOURCES = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "source": ["src", "srcset"],
    "iframe": ["src"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "embed": ["src"],
    "object": ["data"],
}
PASSIVE_LINKS = {"author", "canonical", "help", "license", "next", "prev", "search"}
VOID = {
    *("area", "base", "br", "col", "embed", "hr", "img"),
    *("input", "link", "meta", "source", "track", "wbr"),
}
TRACEBACK = "Traceback (most recent call last)"
PATH = re.compile(r"^\S*/\S*$|^\S+\.(png|jpe?g|svg|gif|webp)$", re.IGNORECASE)
CSS_FETCH = re.compile(r"""(?:@import\s+(?:url\()?|url\()\s*["']?((?:https?:)?//[^"')\s]+)""")


class Page(HTMLParser):
    """What one page refers to, and the anchors that it offers."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.anchors, self.links, self.sources = set(), [], []
        self.alts, self.traceback = [], False
        self._open = []  # (tag, whether inside the output of a notebook)
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = {name: value or "" for name, value in attributes}
        classes = attributes.get("class", "").split()
        for name in ("id", "name"):
            if attributes.get(name):
                self.anchors.add(attributes[name])

        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "link":
            passive = PASSIVE_LINKS & set(attributes.get("rel", "").lower().split())
            (self.links if passive else self.sources).append(attributes.get("href", ""))
        for name in SOURCES.get(tag, []):
            for candidate in _candidates(name, attributes.get(name, "")):
                self.sources.append(candidate)
        if tag == "img":
            self.alts.append((attributes.get("src", ""), attributes.get("alt", "")))

        in_output = bool(self._open and self._open[-1][1])
        in_output = in_output or "cell_output" in classes or "output" in classes
        self.traceback = self.traceback or (in_output and "traceback" in classes)
        if tag not in VOID:
            self._open.append((tag, in_output))

    def handle_endtag(self, tag):
        if tag in (name for name, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data):
        if self._open and self._open[-1][1] and TRACEBACK in data:
            self.traceback = True


def _candidates(attribute, value):
    if attribute != "srcset" or value.startswith("data:"):
        return [value] if value else []
    return [part.split()[0] for part in value.split(",") if part.strip()]


def _is_remote(target):
    return target.startswith("//") or urlsplit(target).scheme in {"http", "https"}


def problems(folder):
    """Everything that is wrong with the pages below a folder.

    Parameters
    ----------
    folder : path
        Where the built book lies; its pages are all ``*.html`` files outside ``_static``.

    Returns
    -------
    list of str
        One line per problem, beginning with the file; empty if there is none.
    """
    root = Path(folder).resolve()
    files = sorted(p for p in root.rglob("*.html") if "_static" not in p.relative_to(root).parts)
    if not files:
        return [f"{folder}: no pages here; build the book first"]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in files}

    found = []
    for path, page in pages.items():
        name = path.relative_to(root).as_posix()
        for target in page.sources:
            if _is_remote(target):
                found.append(f"{name}: fetches {target} from the network")
        for target in page.links + page.sources:
            problem = _local_problem(target, path, root, pages)
            if problem:
                found.append(f"{name}: {problem}")
        for source, alt in page.alts:
            shown = source if len(source) <= 80 else source[:77] + "..."
            if not alt.strip():
                found.append(f"{name}: picture {shown} has no alt text")
            elif PATH.match(alt.strip()):
                found.append(f"{name}: picture {shown} has a path as alt text, {alt!r}")
        if page.traceback:
            found.append(f"{name}: the output of a notebook shows a traceback")

    for path in sorted(root.rglob("*.css")):
        for target in CSS_FETCH.findall(path.read_text(encoding="utf-8", errors="replace")):
            name = path.relative_to(root).as_posix()
            found.append(f"{name}: fetches {target} from the network")
    return list(dict.fromkeys(found))


def _local_problem(target, path, root, pages):
    """What is wrong with a reference to the book itself, or None."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or target in ("", "#"):
        return None
    if parts.path.startswith("/"):
        return f"{target} is an absolute path; it holds on no other machine"
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if file.is_dir():
        file = file / "index.html"
    if not file.is_relative_to(root):
        return f"{target} lies outside the book"
    if not file.is_file():
        return f"{target} does not exist"
    anchor = unquote(parts.fragment)
    if anchor and file in pages and anchor not in pages[file].anchors:
        return f"{target} points to an anchor that does not exist"
    return None


def main(arguments):
    if len(arguments) != 1:
        print("usage: python book/check.py <html folder>", file=sys.stderr)
        return 2
    found = problems(arguments[0])
    for line in found:
        print(line)
    print(f"{len(found)} problem{'' if len(found) == 1 else 's'} in {arguments[0]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
