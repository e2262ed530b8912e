"""The local endpoint: /livez /readyz /metrics /state /receipts /events, and the page.

It shows what it is given (`HealthReport`, events) and knows nothing else of the agent.  What each
address answers is in docs/spec/http.md.
"""

from agent.adapters.web.probe import probe
from agent.adapters.web.server import WebFaces
from agent.adapters.web.source import HttpSource
from agent.adapters.web.token import read_token

__all__ = ["HttpSource", "WebFaces", "probe", "read_token"]
