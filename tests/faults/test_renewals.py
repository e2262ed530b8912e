"""Certificates replaced again and again under a live stream: planned reconnects, nothing lost."""

import pytest

from tests.integration.test_mqtt_faults import renew
from tests.world import zoo
from tests.world.broker import Broker, Certificates, free_port
from tests.world.site import DEVICE, Site
from tests.world.stream import Stream
from tests.world.waiting import eventually

RATE = 100.0
CLIENTS = (DEVICE, f"{DEVICE}.s")  # the link's, and the stream's


def renewed(tmp_path, times):
    certs, port = Certificates(tmp_path), free_port()
    listener = [
        f"listener {port} 127.0.0.1",
        f"cafile {certs.ca_file}",
        f"certfile {certs.cert_file}",
        f"keyfile {certs.key_file}",
        "require_certificate true",
    ]
    mine = {
        "url": f"mqtts://127.0.0.1:{port}",
        "ca_file": str(certs.ca_file),
        "cert_file": str(certs.client_cert_file),
        "key_file": str(certs.client_key_file),
    }
    with Broker(extra=listener) as broker, Site(broker, tmp_path, mqtt=mine) as site:

        def connects():
            said = broker.log.read_text(encoding="utf-8")
            return {client: said.count(f" as {client} (") for client in CLIENTS}

        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        with Stream(broker.port, RATE) as stream:
            first = before = connects()
            for n in range(times):
                renew(certs, f"renewal-{n}@edge.test")
                want = {client: count + 1 for client, count in before.items()}
                before = eventually(lambda w=want: connects() == w and w, 30, f"renewal {n}")
            sent = stream.stop()
        books = site.scored("m", sent)
        assert books.check() == sent
        assert {c: n - first[c] for c, n in connects().items()} == dict.fromkeys(CLIENTS, times)
        print(f"{times} renewals, {sent} readings: 0 lost, {books.repeated} rows twice")
        assert site.process.poll() is None


def test_renewed_certificates_cost_no_reading(tmp_path):
    """[delivery-6.6] F20."""
    renewed(tmp_path, 2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_fifty_renewals_cost_no_reading(tmp_path):
    """F20."""
    renewed(tmp_path, 50)
