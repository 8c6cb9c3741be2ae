"""Stand-ins for a Stack Exchange site and its API, on this machine: no test needs the network, and no real site pays.

`with StandInSite(questions) as site:` serves pages at `site.url`, `with StandInApi(questions) as api:` answers at
`api.url`; both give the faults asked of them. To try a collector by hand: `python tests/standin --questions 3000`.
"""

from .api import StandInApi
from .questions import Question, make_questions
from .site import StandInSite

__all__ = ["Question", "StandInApi", "StandInSite", "make_questions"]
