"""Workers that connect over the loopback, the way of Windows, tried wherever the tests run."""

import select
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from agent.adapters.processes import Limits, ProcessEngine
from agent.adapters.processes.child import _admitted
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from agent.ports import Answer, WorkerLostError
from tests.world import zoo

REF = ModelRef("pump", 3, Digest(f"sha256:{'0' * 64}"))


def test_a_worker_that_dials_scores_dies_and_comes_back(tmp_path: Path) -> None:
    folder = zoo.running_sum(tmp_path / "m")
    manifest = parse((folder / "model.toml").read_bytes())
    session = ProcessEngine(Limits(), dial=True, sealed=False).load(
        REF, folder, manifest, background=True
    )
    try:
        for _ in range(2):
            assert session.golden().ok
            for rows in (1, 50_000):
                x = np.ones((rows, 1), np.float32)
                session.submit(rows, [x, x])
                answers: list[Answer] = []
                while not answers:  # a large one comes in pieces
                    assert select.select([session.fileno()], [], [], 10)[0]
                    answers += session.collect()
                assert (answers[0].outputs[0] == 2).all()
            session.kill()
            assert select.select([session.fileno()], [], [], 10)[0]
            with pytest.raises(WorkerLostError):
                session.collect()
            session.revive()
    finally:
        session.close()


def test_a_stranger_who_dials_first_is_not_taken_for_the_worker() -> None:
    secret = bytes(range(32))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        def dial() -> None:
            for word in (b"x" * 32, secret):
                with socket.create_connection(address) as sock:
                    sock.sendall(word)
                    sock.recv(1)  # until it is dropped, or greeted

        caller = threading.Thread(target=dial)
        caller.start()
        with _admitted(listener, secret, time.monotonic() + 10) as admitted:
            admitted.sendall(b"!")
        caller.join()
