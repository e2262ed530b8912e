"""A plant whose control plane is AWS IoT Core: as `Site`, in its words."""

import time
from pathlib import Path

from agent.core.enclosed import pack_metadata
from tests.world.iot_core import IotCore
from tests.world.site import DEVICE, Site
from tests.world.waiting import eventually


class ThingSite(Site):
    """A context manager; its cloud comes and goes with it.  Readings come over the plant's broker.

    Wishes are jobs; `packages` says whether their files come as file streams.
    """

    def __init__(self, broker, folder, **more):
        self.core = IotCore(Path(folder))
        super().__init__(broker, folder, hears=(), aws=self.core.settings, **more)
        self.environ = {"EDGE_AGENT__CONTROL": "aws"}
        self.core.told = self._told
        self._answers = {}

    def __enter__(self):
        self.core.__enter__()
        return super().__enter__()

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.core.__exit__(*exc)

    def desire(self, name, release, *, stream="s", rollout=None, raw=None):
        """Order it as a job; returns the job's id."""
        assert raw is None
        self.revision += 1
        wish = {"release": release, "stream": stream, "rollout": rollout or {}}
        document = {"models": {name: wish}}
        if self.repository == "mqtt":
            document["stream"] = self._offer()
        ident = f"job-{self.revision}"
        self.core.create_job(ident, document)
        return ident

    def command(self, name, args, seconds=10):
        """Over the native topics: IoT Core has no words for it."""
        ident = f"c{time.time_ns()}"
        body = {"id": ident, "expires": time.time() + 60, "args": args}
        self.core.say(f"edge/{DEVICE}/command/{name}", body)
        return eventually(lambda: self._answers.get(ident), seconds, f"an answer to {name}")

    @property
    def reported(self):
        """What the shadow reports."""
        return self.core.reported

    @reported.setter
    def reported(self, _):
        pass

    def _offer(self):
        """The repository's files as a stream of IoT Core."""
        blobs = sorted((self._repo.folder / "blobs" / "sha256").iterdir())
        files = {n: blob.read_bytes() for n, blob in enumerate(blobs)}
        names = {f"sha256:{blob.name}": n for n, blob in enumerate(blobs)}
        bundle = {
            path.name: path.read_bytes() for path in (self._repo.folder / "metadata").iterdir()
        }
        files[len(blobs)] = pack_metadata(bundle).encode()
        name = f"stream-{self.revision}"
        self.core.streams[name] = files
        return {"id": name, "files": names, "metadata": len(blobs)}

    def _told(self, topic, document):
        parts = topic.split("/")
        if parts[2] == "scores":
            self.book(parts[3]).take(document)
        elif parts[2] == "events":
            self.events.append(document)
        elif parts[2] == "answer":
            self._answers[parts[3]] = document
