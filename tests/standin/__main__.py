"""The stand-ins till Ctrl-C, to try the collectors by hand: `python tests/standin --questions 3000 --port 8099`."""

import argparse
import sys
import threading
from contextlib import suppress
from pathlib import Path

# By path, since the name `tests` belongs to an installed package: `python -m tests.standin` would look in there.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from standin import StandInApi, StandInShop, StandInSite, make_books, make_questions


def main() -> None:
    parser = argparse.ArgumentParser(prog="standin", description="a Stack Exchange site, its API and a bookshop")
    parser.add_argument("--questions", type=int, default=520, help="how many (%(default)s)")
    parser.add_argument("--port", type=int, default=8099, help="of the site; API and shop have the next; 0: any (%(default)s)")
    parser.add_argument("--markup", choices=["today", "old", "mixed"], default="today")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to every reply (%(default)s)")
    args = parser.parse_args()
    questions = make_questions(args.questions)
    with (
        StandInSite(questions, args.markup, port=args.port, latency=args.latency) as site,
        StandInApi(questions, port=args.port and args.port + 1, latency=args.latency) as api,
        StandInShop(make_books(), port=args.port and args.port + 2, latency=args.latency) as shop,
        suppress(KeyboardInterrupt),
    ):
        print(f"site  {site.url}/questions?tab=newest\napi   {api.url}/questions?site={api.site}\n"
              f"shop  {shop.url}/books/category/1000/newest/0/any/any", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
