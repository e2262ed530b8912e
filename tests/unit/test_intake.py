"""One stream and its models: what one of them had before a restart, it is not given again."""

from types import SimpleNamespace

import pytest

from agent.ports import Burst
from agent.runtime.shares import Shares
from tests.world.sparkplug import EdgeNode
from tests.world.still import intake

AT = 1_732_180_000_000
IDS = [b"%04d" % n for n in range(6)]


class Model:
    """What an intake gives a model that has done `ahead` messages of what comes again."""

    def __init__(self, ahead):
        self.shares = Shares(b"".join(IDS[:ahead]))
        self.closed = False
        self.given = []

    def push(self, block, hold, now, had=b""):
        values = block.columns["temp"].tolist(), block.columns["vib"].tolist()
        self.given += zip(*values, strict=True)
        self.had, self.rejected = had, block.rejected


@pytest.mark.parametrize("aheads", [(0, 2), (3, 1), (6, 0), (0, 0), (4, 4)])
def test_each_model_gets_what_it_had_not_and_every_payload_is_decoded_once(aheads):
    node = EdgeNode(p1={"temp": ("Float", 0.0), "vib": ("Float", 0.0)})
    messages = list(node.births(AT))[1:]  # that of the node itself gives no reading
    changes = [{"temp": 1.0}, {"vib": 2.0}, {"temp": 3.0}, {"vib": 4.0}]
    messages += [node.data("p1", AT + n, **change) for n, change in enumerate(changes)]
    messages.append((node.topic("DDATA", "p2"), b""))  # never born
    stream = intake(format="sparkplug", key="")
    stream.decoder.want(["temp", "vib"])
    models = [Model(ahead) for ahead in aheads]
    for n, model in enumerate(models):
        stream.scorings[str(n)] = model
    burst = Burst(
        "s",
        [raw for _, raw in messages],
        0.0,
        [topic.encode() for topic, _ in messages],
        ids=b"".join(IDS),
        oversize=2,
    )
    stream.take(SimpleNamespace(), burst, 0.0, AT / 1000)
    want = [(0, 0), (1, 0), (1, 2), (3, 2), (3, 4)]
    for model, ahead in zip(models, aheads, strict=True):
        assert model.given == want[ahead:]
        assert model.had == b"".join(IDS[:ahead])
        assert model.rejected == ({} if ahead == 6 else {"birth": 1}) | (
            {} if ahead else {"size": 2}
        )
    assert (stream.readings, stream.rejected) == (8, {"birth": 1, "size": 2})
    assert stream.health("", "").seq_gaps == 0
