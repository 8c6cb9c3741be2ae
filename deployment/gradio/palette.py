"""The colours of a book's cover from its genres, each with the genres behind it: the palette as data, CSS and JSON.

A model's labels are genres, or paths of genres, or else the colours themselves; the map says which genres bring which colours.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import ImageColor

from tagwright.errors import TagwrightError
from tagwright.hues import MAP, Reason, genre_parts, hues_of, load_map

MAX_SWATCHES = 8
MAX_BEHIND = 50  # genres named behind a colour
COLOURS = list(ImageColor.colormap)  # the 148 names of CSS
READABLE, COMFORTABLE = 4.5, 7.0  # contrast ratios of WCAG 2.2, levels AA and AAA
TINTS = (0.25, 0.2, 0.15, 0.1, 0.05)  # how much of a colour the text on it may hold, the most first

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Swatch:
    """A colour of a palette: its CSS name, `#rrggbb`, the colour of a text on it, the first MAX_BEHIND of the genres that bring
    it, and how many do."""

    name: str
    hex: str
    ink: str
    genres: list[Reason]
    genre_count: int


def read_map(model: Path) -> dict[str, Reason]:
    """The map of hues in a model folder. Raises TagwrightError where it is damaged, or names a colour that CSS has not."""
    reasons = load_map(model / MAP)
    for genre, reason in reasons.items():
        if unknown := [hue for hue in reason.hues if hue not in COLOURS]:
            raise TagwrightError(f"{model / MAP}: {genre!r}: {unknown[0]!r} is no colour of CSS")
    return reasons


def palette(scores: Mapping[str, float], reasons: dict[str, Reason], way: str | None = "mapped") -> list[Swatch]:
    """The at most MAX_SWATCHES colours of labels with these scores, which are the colours themselves where `way`, a manifest's
    `hues`, is "predicted", and genres otherwise. A colour counts as much as its genres together, and comes before those that
    count less; equal ones keep the order of the labels."""
    if way == "predicted":
        weights = {label: score for label, score in scores.items() if label in COLOURS}
        found = {colour: behind(colour, reasons) for colour in weights}
    else:
        found = hues_of(scores, reasons)
        best: dict[str, float] = {}  # of a genre, in whichever label it is
        for path, score in scores.items():
            for genre in genre_parts(path):
                best[genre] = max(best.get(genre, 0), score)
        weights = {hue: sum(best[reason.genre] for reason in bringers) for hue, bringers in found.items()}
    order = sorted(found, key=weights.__getitem__, reverse=True)[:MAX_SWATCHES]
    return [Swatch(name, to_hex(ImageColor.getrgb(name)), to_hex(ink(ImageColor.getrgb(name))), found[name][:MAX_BEHIND],
                   len(found[name])) for name in order]


def behind(colour: str, reasons: dict[str, Reason]) -> list[Reason]:
    """The genres of the map that bring a colour: first those of its table, then the others, the most alike first."""
    return sorted((reason for reason in reasons.values() if colour in reason.hues),
                  key=lambda reason: (reason.like != reason.genre, -reason.similarity))


def luminance(rgb: Rgb) -> float:
    """The relative luminance of WCAG 2.2, from 0 (black) to 1 (white)."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (part / 255 for part in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Rgb, other: Rgb) -> float:
    """The contrast ratio of WCAG 2.2, from 1 to 21."""
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def ink(background: Rgb) -> Rgb:
    """What a text on `background` is written in: black or white, whichever is the more readable, which is never less than
    READABLE; tinted with the background as far as the text stays comfortable to read."""
    plain = max([(0, 0, 0), (255, 255, 255)], key=lambda candidate: contrast(candidate, background))
    tinted = (mix(plain, background, share) for share in TINTS)
    return next((tint for tint in tinted if contrast(tint, background) >= COMFORTABLE), plain)


def mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    """`one` with a `share` (0 to 1) of `other` in it."""
    return tuple(round(a + share * (b - a)) for a, b in zip(one, other, strict=True))


def to_hex(rgb: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def because(reason: Reason) -> str:
    """Why a genre has its colours, in a line."""
    if reason.like in ("", reason.genre):
        return f"{reason.genre}: {reason.why}"
    return f"{reason.genre}: like {reason.like}, cosine {reason.similarity:.2f}: {reason.why}"


def to_css(swatches: list[Swatch]) -> str:
    """The palette as custom properties: each colour by its place, and the colour of a text on it."""
    lines = [f"  --cover-{place}: {swatch.hex}; /* {swatch.name} */\n  --cover-{place}-text: {swatch.ink};"
             for place, swatch in enumerate(swatches, 1)]
    return "\n".join([":root {", *lines, "}", ""])


def to_json(swatches: list[Swatch], title: str) -> str:
    return json.dumps({"title": title, "colours": [asdict(swatch) for swatch in swatches]}, indent=2, ensure_ascii=False) + "\n"
