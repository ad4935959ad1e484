"""The page's own files: all there, all served, and nothing from elsewhere."""

from __future__ import annotations

import gzip
import re

from producer.gateway.page_files import FOLDER

VENDORED = FOLDER / "vendor" / "preact-htm.js"
TEXTS = {path: path.read_text() for path in FOLDER.rglob("*") if path.is_file()}
OWN = {path: text for path, text in TEXTS.items() if path.parent == FOLDER}


def test_every_module_that_is_imported_is_there_and_every_module_is_imported() -> None:
    imported = {FOLDER / "app.js"}
    for path, text in OWN.items():
        if path.suffix == ".js":
            imported |= {(path.parent / name).resolve() for name in re.findall(r'from "(\./[^"]+)"', text)}

    assert imported == {path for path in TEXTS if path.suffix == ".js"}


def test_nothing_is_asked_of_another_host_and_nothing_is_written_as_html() -> None:
    for path, text in OWN.items():
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|new Function| style=\"", text), path.name


def test_the_whole_page_is_small_and_its_one_foreign_module_keeps_its_licence() -> None:
    sizes = {path: len(gzip.compress(text.encode())) for path, text in TEXTS.items()}

    assert sizes[VENDORED] < 6_000
    assert sum(sizes.values()) < 40_000
    assert "Permission is hereby granted" in TEXTS[VENDORED.parent / "NOTICE.txt"]


def test_every_value_that_colours_the_light_page_has_one_for_the_dark() -> None:
    style = TEXTS[FOLDER / "style.css"]
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    names = set(re.findall(r"(--[\w-]+):", light)) - {"--sans", "--mono"}

    assert names == set(re.findall(r"(--[\w-]+):", dark))


def test_text_can_be_read_on_what_lies_behind_it() -> None:
    style = TEXTS[FOLDER / "style.css"]
    pairs = [("text", "panel"), ("text", "ground"), ("muted", "panel"), ("muted", "ground"), ("accent", "panel")]
    pairs += [(kind, f"{kind}-ground") for kind in ("good", "warn", "bad")] + [
        ("accent-text", "accent"),
        ("bad", "panel"),
    ]
    pairs += [("muted", "plain-ground"), ("text", "plain-ground")]

    for theme in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", theme))
        for front, back in pairs:
            # WCAG 2, level AA.
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back, colours[front], colours[back])


def contrast(one: str, other: str) -> float:
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
