"""Sparkplug B through a real broker: births, then what changed, and an agent that comes back."""

import pytest

from tests.world import zoo
from tests.world.site import Site
from tests.world.sparkplug import EdgeNode
from tests.world.waiting import eventually

AT = 1_700_000_000_000
PUMP = {"Inputs/Temp": ("Float", 1.0), "vib": ("Int16", -2), "name": ("String", "north")}
STREAM = {
    "name": "s",
    "topic": "spBv1.0/plant/+/+/#",
    "format": "sparkplug",
    "fields": {"temp": "Inputs/Temp"},
}


class Plant:
    """An edge node with two pumps that sends as Sparkplug wants it, at QoS 0; what that gives."""

    def __init__(self, site):
        self.site, self.node = site, EdgeNode(p1=PUMP, p2=PUMP)
        self.at, self.want, self.known = AT, [], {}

    def publish(self, topic, payload):
        self.site.publish(topic, payload, qos=0)

    def born(self):
        for message in self.node.births(self.at):
            self.publish(*message)
        for device in self.node.devices:
            self.known[device] = {"Inputs/Temp": 1.0, "vib": -2}
            self._gives(device)

    def sends(self, device, **changes):
        """y = temp + 10 vib of what is known by then."""
        changes = {name.replace("temp", "Inputs/Temp"): v for name, v in changes.items()}
        self.at += 1000
        self.publish(*self.node.data(device, self.at, **changes))
        self.known[device] |= changes
        self._gives(device)

    def _gives(self, device):
        known = self.known[device]
        score = known["Inputs/Temp"] + 10 * known["vib"]
        self.want.append((f"plant/e1/{device}", self.at / 1000, score))

    def scored(self):
        """Every score there should be, and no other."""
        books = self.site.scored("m", len(self.want))
        assert books.check() == len(self.want)
        assert [books.rows[seq][:3] for seq in range(len(self.want))] == self.want


def hears(site):
    eventually(lambda: site.state()["streams"]["s"]["trouble"] == "", 20, "the stream is heard")


def saved(site):
    """Whether births are in the store, which is the agent's alone while it lives."""
    return any(b"births:s" in path.read_bytes() for path in (site.folder / "store").glob("*.db*"))


@pytest.mark.parametrize("end", ["kill", pytest.param("stop", marks=pytest.mark.soak)])
def test_devices_are_scored_by_what_changed_and_a_restart_forgets_no_birth(broker, tmp_path, end):
    """[streams-3.1] [streams-3.2] [streams-3.6] [streams-3.7]"""
    with Site(broker, tmp_path, streams=[STREAM], engine={"isolation": "inline"}) as site:
        site.start()
        site.deploy(zoo.columns(tmp_path / "m", name="m"))
        hears(site)
        plant = Plant(site)
        plant.publish(*EdgeNode("e2", p1=PUMP).death())  # of one that was never born
        plant.publish("spBv1.0/STATE/host", b'{"online": true, "timestamp": 1}')
        plant.born()
        for n in range(20):
            plant.sends(f"p{n % 2 + 1}", **({"temp": n + 0.5} if n % 3 else {"vib": n}))
        plant.scored()
        assert site.state()["streams"]["s"]["seq_gaps"] == 0
        eventually(lambda: saved(site), 10, "births are saved")
        if end == "stop":
            site.stop()
        else:
            site.kill()
        plant.node.data("p1", plant.at)  # sent, and heard by nobody
        site.start(ready=True)
        hears(site)
        for n in range(20):  # what did not change since is held by the model's features
            plant.sends(f"p{n % 2 + 1}", temp=n + 0.25)
        plant.scored()
        plant.publish(*plant.node.death())
        plant.publish(*plant.node.data("p1", plant.at, vib=99))
        counts = {"in": 43, "scored": 42, "rejected": {"birth": 1}, "expired": 0, "pending": 0}
        eventually(lambda: site.model("m")["counts"] == counts, 10, f"{site.model('m')}")
        assert "no birth certificate" in site.state()["streams"]["s"]["last_reject"]["birth"]
