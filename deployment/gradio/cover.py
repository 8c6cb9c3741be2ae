"""A mock cover drawn from a palette: one of three abstract designs, told by the title, and the title on a plain band.

The same title and colours always give the same picture.
"""

import hashlib
import io
import math
import random
import unicodedata
from functools import cache

from palette import Swatch, mix, to_hex
from PIL import Image, ImageColor, ImageDraw, ImageFont

WIDTH, HEIGHT = 480, 640
BAND = (352, 560)  # top and bottom of the title's band
MARGIN = 36
LEGEND = 300  # width of the swatches beside the cover
FINE = 2  # drawn at this scale and made smaller, which smooths the edges
SIZES = (60, 52, 44, 38, 32, 27)  # of the title's letters; the last is for titles that no other fits
MAX_TITLE = 200  # characters
PLAIN = str.maketrans({"–": "-", "—": "-", "‐": "-", "‑": "-", "‘": "’", "„": "“", "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe",
                       "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "þ": "th", "ı": "i"})


def draw_cover(swatches: list[Swatch], title: str) -> Image.Image:
    """The cover, WIDTH × HEIGHT, RGB; without a title where the font lacks letters of it. `swatches` holds at least one."""
    digest = hashlib.sha256(title.encode("utf8", "replace")).digest()
    chance = random.Random(digest)
    band, *others = [swatch.hex for swatch in swatches]
    if len(others) < 2:  # too few to draw with
        ends = ImageColor.getrgb(band), ImageColor.getrgb(others[0] if others else swatches[0].ink)
        others += [to_hex(mix(*ends, share)) for share in (0.7, 0.35)]
    picture = Image.new("RGB", (FINE * WIDTH, FINE * HEIGHT), others[0])
    DESIGNS[digest[0] % len(DESIGNS)](ImageDraw.Draw(picture), others, chance)
    picture = picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, BAND[0], WIDTH, BAND[1] - 1), fill=band)
    if setting := set_title(title):
        size, rows = setting
        pen.multiline_text((MARGIN, sum(BAND) / 2), "\n".join(rows), fill=swatches[0].ink, font=font(size), anchor="lm",
                           spacing=size // 5)
    return picture


def draw_sheet(cover: Image.Image, swatches: list[Swatch]) -> Image.Image:
    """A finished cover with the swatches, their names and values on its right."""
    sheet = Image.new("RGB", (WIDTH + LEGEND, HEIGHT), "white")
    sheet.paste(cover, (0, 0))
    pen = ImageDraw.Draw(sheet)
    edges = [round(place * HEIGHT / len(swatches)) for place in range(len(swatches) + 1)]
    for swatch, top, bottom in zip(swatches, edges, edges[1:], strict=False):
        pen.rectangle((WIDTH, top, WIDTH + LEGEND - 1, bottom - 1), fill=swatch.hex)
        pen.text((WIDTH + 24, (top + bottom) / 2), f"{swatch.name}\n{swatch.hex}", fill=swatch.ink, font=font(24), anchor="lm")
    return sheet


def to_png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def hills(pen: ImageDraw.ImageDraw, colours: list[str], chance: random.Random) -> None:
    """A disc above waves, one behind the other."""
    width, band = FINE * WIDTH, FINE * BAND[0]
    radius = FINE * chance.uniform(50, 85)
    x, y = width * chance.uniform(0.3, 0.7), band * chance.uniform(0.3, 0.45)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colours[1])
    layers = max(len(colours), 4)
    for layer in range(layers):
        level = band * (0.45 + 0.6 * layer / layers)
        swing, length, phase = FINE * chance.uniform(14, 42), chance.uniform(0.7, 1.6), chance.uniform(0, math.tau)
        crest = [(x, level + swing * math.sin(phase + length * math.tau * x / width)) for x in range(0, width + 8, 8)]
        pen.polygon([(0, FINE * HEIGHT), *crest, (width, FINE * HEIGHT)], fill=colours[(layer + 2) % len(colours)])


def rings(pen: ImageDraw.ImageDraw, colours: list[str], chance: random.Random) -> None:
    """Rings around a point near the cover's edge."""
    x = FINE * WIDTH * chance.choice([0.0, 0.25, 0.75, 1.0])
    y, step = FINE * BAND[0] * chance.uniform(0.3, 0.9), FINE * chance.uniform(30, 44)
    for number in range(24, 0, -1):
        radius = number * step
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colours[number % len(colours)])


def tiles(pen: ImageDraw.ImageDraw, colours: list[str], chance: random.Random) -> None:
    """A quilt of quarter discs, each turned by chance."""
    side = FINE * WIDTH // 4
    for row in range(-(-FINE * HEIGHT // side)):
        for column in range(4):
            left, top = column * side, row * side
            ground, leaf = chance.sample(colours, 2)
            pen.rectangle((left, top, left + side, top + side), fill=ground)
            x, y = left + side * chance.randrange(2), top + side * chance.randrange(2)
            quarter = {(0, 0): 0, (1, 0): 90, (1, 1): 180, (0, 1): 270}[(x > left, y > top)]
            pen.pieslice((x - side, y - side, x + side, y + side), quarter, quarter + 90, fill=leaf)


DESIGNS = [hills, rings, tiles]


def set_title(title: str) -> tuple[int, list[str]] | None:
    """The size of letters and the lines that a title is set in; None where there is nothing to write."""
    if not (text := writable(title)):
        return None
    room, most = WIDTH - 2 * MARGIN, BAND[1] - BAND[0] - 24
    for size in SIZES:
        rows, most_rows = wrap(text, size, room), int(most / (size * 1.35))
        if len(rows) <= most_rows and all(font(size).getlength(row) <= room for row in rows):
            return size, rows
    rows = [part for row in rows for part in cut(row, size, room)]
    if len(rows) > most_rows:
        rows = rows[:most_rows]
        while font(size).getlength(rows[-1] + "…") > room:
            rows[-1] = rows[-1][:-1]
        rows[-1] = rows[-1].rstrip() + "…"
    return size, rows


def writable(title: str) -> str:
    """A title as the font can write it, shortened where it is too long; empty where the font lacks letters of it."""
    text = " ".join(latin(" ".join(title.split())[: MAX_TITLE + 1]).split())
    if len(text) > MAX_TITLE:
        text = text[:MAX_TITLE].rstrip() + "…"
    return text if all(map(has_letter, set(text))) else ""


def latin(title: str) -> str:
    """A title in the letters that the font has as far as it has any like them: without accents, with plain dashes, and
    without what no font shows."""
    plain = unicodedata.normalize("NFKD", title.translate(PLAIN))
    return "".join(letter for letter in plain if unicodedata.category(letter) not in ("Mn", "Cc", "Cf"))


def wrap(text: str, size: int, room: float) -> list[str]:
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and font(size).getlength(longer) > room:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows


def cut(row: str, size: int, room: float) -> list[str]:
    """A row in pieces that have room, for a word that alone is wider."""
    pieces = [""]
    for letter in row:
        if font(size).getlength(pieces[-1] + letter) > room:
            pieces.append("")
        pieces[-1] += letter
    return pieces


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def has_letter(letter: str) -> bool:
    """Whether the font draws a letter, rather than the box that stands for those it has not."""
    return letter == " " or bytes(font(SIZES[-1]).getmask(letter)) != bytes(font(SIZES[-1]).getmask("\U0010ffff"))
