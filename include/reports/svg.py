"""From matplotlib's SVG document to an element that belongs to the page.

Presentation attributes hold the light colours (for print and PDF); classes let the page's style
sheet put its own in their place. No ``style`` attribute is left, so that the page's content
security policy can name its one style sheet by hash and refuse everything else.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

# Light theme, AA contrast on white; must equal the variables of templates/report.css.
COLOURS = {
    "ink": "#1c2430",
    "muted": "#566171",
    "grid": "#d9dee5",
    "accent": "#2b5fa8",
    "page": "#ffffff",
    "pass": "#1d6b43",
    "attention": "#8a5300",
    "fail": "#b02a25",
}
# For the PDF; the page's style sheet has its own. No blanks: WeasyPrint does not strip them.
FONT = (
    "Noto Sans,Segoe UI,Helvetica Neue,Arial,Noto Sans CJK SC,PingFang SC,Microsoft YaHei,"
    "sans-serif"
)

_NAMES = {colour: name for name, colour in COLOURS.items()}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_DROPPED_STYLES = {"font-family", "font-weight", "stroke-linejoin"}


def inline_svg(document: str, title: str, description: str, prefix: str) -> str:
    """Make a self-contained, accessible, themable ``<svg>`` element.

    Args:
        document: the SVG document that matplotlib wrote.
        title: name of the chart for screen readers.
        description: the figures in words.
        prefix: put before every id, unique on the page.
    """
    source = ElementTree.fromstring(document)  # noqa: S314 - our own document
    root = _clean(source)
    view = source.get("viewBox", "0 0 680 200")
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": view,
            "width": view.split()[2],
            "height": view.split()[3],
            "class": "chart",
            "role": "img",
            "aria-labelledby": f"{prefix}-title {prefix}-desc",
            "font-family": FONT,
        }
    )
    _namespace_ids(root, prefix)
    for name, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(name, {"id": f"{prefix}-{name}"})
        element.text = _CONTROL.sub("\ufffd", text)
        root.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _clean(element: ElementTree.Element) -> ElementTree.Element:
    """Copy without namespaces, metadata and style attributes."""
    copy = ElementTree.Element(_local(element.tag))
    for key, value in element.attrib.items():
        if key == "style":
            _apply_style(copy, value)
        else:
            copy.set(_local(key), value)
    _name_colours(copy)
    copy.text = element.text if copy.tag == "text" else None
    for child in element:
        if isinstance(child.tag, str) and _local(child.tag) not in ("metadata", "style"):
            copy.append(_clean(child))
    return copy


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _apply_style(element: ElementTree.Element, style: str) -> None:
    for declaration in style.split(";"):
        name, _, value = declaration.partition(":")
        if name.strip() and name.strip() not in _DROPPED_STYLES:
            element.set(name.strip(), value.strip())


def _name_colours(element: ElementTree.Element) -> None:
    classes = [
        f"{key}-{_NAMES[element.get(key, '')]}"
        for key in ("fill", "stroke")
        if element.get(key, "") in _NAMES
    ]
    if classes:
        element.set("class", " ".join(classes))


def _namespace_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keep only ids that something refers to, each with the chart's prefix."""
    used: set[str] = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "href" and value.startswith("#"):
                used.add(value[1:])
                element.set(key, f"#{prefix}-{value[1:]}")
            elif found := _REFERENCE.search(value):
                used.add(found.group(1))
                element.set(key, f"url(#{prefix}-{found.group(1)})")
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{prefix}-{identifier}")
