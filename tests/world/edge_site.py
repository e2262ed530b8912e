"""A plant whose control plane is IoT Edge: as `Site`, in the hub's words."""

import json
from pathlib import Path

from tests.world.edge_hub import EdgeHub
from tests.world.site import Site

INPUT = "readings"


class EdgeSite(Site):
    """A context manager; its hub comes and goes with it.  Readings come in at an input."""

    def __init__(self, folder, **more):
        self.hub = EdgeHub(Path(folder))
        stream = {"name": "s", "source": "input", "topic": INPUT, "key": "{2}", "time": "ts"}
        more.setdefault("streams", [stream])
        super().__init__(self.hub.broker, folder, hears=(), **more)
        self.environ = self.hub.environ
        self.hub.told = self._told

    def __enter__(self):
        self.hub.__enter__()
        return super().__enter__()

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.hub.__exit__(*exc)

    def desire(self, name, release, *, stream="s", rollout=None, raw=None):
        """Put the wish into the twin."""
        assert raw is None
        self.revision += 1
        wish = {"release": release, "stream": stream, "rollout": rollout or {}}
        self.hub.desire({"schema": 1, "revision": self.revision, "models": {name: wish}})

    def command(self, name, args, seconds=30):
        """Call the direct method."""
        code, document = self.hub.call(name, args, seconds)
        assert document["code"] == code
        return document

    def readings(self, documents, *, topic="plant/p1"):
        """From a module that is called as the last level of `topic`."""
        raw = [json.dumps(document).encode() for document in documents]
        self.hub.send(INPUT, raw, sender=topic.rpartition("/")[2])

    @property
    def reported(self):
        """The twin's reported properties."""
        return self.hub.reported or None

    @reported.setter
    def reported(self, _):
        pass

    def _told(self, bag, document):
        if bag.get("$.on") == "scores":
            self.book(bag["model"]).take(document)
        elif bag.get("$.on") == "events":
            self.events.append(document)
