"""Time the import of a large data dump: `python benchmarks/import_dump.py --megabytes 1000`.

Generates a Posts.xml of that size, and a .7z of it, in a temporary folder, imports each into a new SQLite file by the
command that users type, and writes `results/import_dump.json`: seconds on the clock and of the processor, posts a second,
the most memory held.
"""

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from py7zr import FILTER_BZIP2, SevenZipFile
from rich.console import Console
from rich.table import Table

from benchmarks.report import write_results
from tagwright.task import ROOT

SCRIPT = ROOT / "stackapi" / "import_dump.py"
SYLLABLES = ["ba", "cor", "den", "fi", "gal", "hem", "il", "jo", "kra", "lum", "mer", "no", "pal", "qui", "ro", "sta", "tu"]
WORDS = ["".join(parts) for size in (1, 2, 3) for parts in itertools.product(SYLLABLES, repeat=size)]
# Few words are frequent and most are rare, as in any language
WEIGHTS = list(itertools.accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))
WRAPPINGS = ["&lt;p&gt;{}&lt;/p&gt;&#xA;", "&lt;p&gt;{} &lt;em&gt;never&lt;/em&gt;?&lt;/p&gt;&#xA;&#xA;",
             "&lt;pre&gt;&lt;code&gt;if (a &amp;lt; b) {{ {} }}&lt;/code&gt;&lt;/pre&gt;&#xA;",
             "&lt;p&gt;&lt;a href=&quot;https://example.com/a?b=1&amp;amp;c=2&quot;&gt;“{}”&lt;/a&gt; – 東京&lt;/p&gt;&#xA;"]


def write_posts(path: Path, megabytes: float, seed: int = 0) -> dict[str, int]:
    """Write a Posts.xml of about so many million bytes, of 1 KB a post and 40 % questions; the same seed gives the same
    file. Returns how many posts and questions it holds."""
    rng = random.Random(seed)
    names = [f"{a}-{b}" for a, b in zip(rng.sample(WORDS[400:], 500), rng.sample(WORDS[:400], 250) * 2, strict=True)]
    frequencies = list(itertools.accumulate(1 / rank for rank in range(1, len(names) + 1)))
    posts = questions = 0
    with path.open("w", encoding="utf-8-sig", newline="\r\n") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<posts>\n')
        size = 0
        while size < megabytes * 1e6:
            posts += 1
            words = rng.choices(WORDS, cum_weights=WEIGHTS, k=rng.randint(20, 180))
            body = "".join(rng.choice(WRAPPINGS).format(" ".join(words[at:at + 40])) for at in range(0, len(words), 40))
            day = f"20{posts % 15 + 10}-{posts % 12 + 1:02}-{posts % 28 + 1:02}T12:{posts % 60:02}:05.383"
            row = f'  <row Id="{posts}" PostTypeId="%s" CreationDate="{day}" Score="{rng.randint(-3, 40)}" Body="{body}" '
            rest = f'OwnerUserId="{posts % 977}" LastActivityDate="{day}" %sCommentCount="0" ContentLicense="CC BY-SA 4.0" />\n'
            if rng.random() < 0.4:
                questions += 1
                chosen = dict.fromkeys(rng.choices(names, cum_weights=frequencies, k=rng.randint(1, 5)))
                title = " ".join(words[:8]).capitalize()
                line = (row % 1) + (rest % f'Title="{title} &amp; more?" Tags="&lt;{"&gt;&lt;".join(chosen)}&gt;" ')
            else:
                line = (row % 2) + (rest % f'ParentId="{posts // 2}" ')
            file.write(line)
            size += len(line)
        file.write("</posts>")
    return {"posts": posts, "questions": questions}


def measure(dump: Path, posts: int) -> dict[str, float]:
    """Import a dump into a new SQLite file, in a process of its own."""
    database = dump.with_suffix(".sqlite")
    command = [sys.executable, SCRIPT, dump, "--site", "example", "--db", database]
    started, peak, used = time.perf_counter(), 0, None
    with psutil.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak, used = max(peak, process.memory_info().rss), process.cpu_times()
            time.sleep(0.05)
        print(process.stdout.read().strip())
    if process.returncode:
        raise SystemExit(process.returncode)
    seconds = time.perf_counter() - started
    return {"bytes": dump.stat().st_size, "seconds": round(seconds, 1), "cpu_seconds": round(used.user + used.system, 1),
            "posts_a_second": round(posts / seconds), "peak_mb": round(peak / 1e6), "database_bytes": database.stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=1000)
    with tempfile.TemporaryDirectory() as folder:
        xml, archive = Path(folder, "Posts.xml"), Path(folder, "example.7z")
        counts = write_posts(xml, parser.parse_args().megabytes)
        measured = {"Posts.xml": measure(xml, counts["posts"])}
        with SevenZipFile(archive, "w", filters=[{"id": FILTER_BZIP2}]) as packed:  # as the public dumps are packed
            packed.write(xml, "Posts.xml")
        measured[".7z"] = measure(archive, counts["posts"])
    write_results("import_dump", counts | {"imports": measured})
    table = Table("file", "MB", "seconds", "CPU seconds", "posts a second", "peak MB", title=f"{counts['posts']:,} posts")
    for name, values in measured.items():
        table.add_row(name, f"{values['bytes'] / 1e6:,.0f}", f"{values['seconds']:.1f}", f"{values['cpu_seconds']:.1f}",
                      f"{values['posts_a_second']:,}", f"{values['peak_mb']}")
    Console().print(table)


if __name__ == "__main__":
    main()
