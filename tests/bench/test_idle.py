"""What the agent takes while nothing happens: memory of all its processes, and processor."""

import time

import psutil

from tests.bench.stand import agent, cpu_s, quiet_broker

MIB = 2**20
SETTLE_S, LOOK_S = 5.0, 20.0


def test_memory_and_processor_while_idle(tmp_path, figure):
    with quiet_broker() as broker, agent(broker, tmp_path / "agent", 1) as pid:
        time.sleep(SETTLE_S)
        before = cpu_s(pid)
        time.sleep(LOOK_S)
        used = (cpu_s(pid) - before) / LOOK_S
        root = psutil.Process(pid)
        parts = [process.memory_full_info() for process in (root, *root.children(recursive=True))]
    told = " + ".join(f"{part.pss / MIB:.0f}" for part in parts)
    whole = sum(part.pss for part in parts) / MIB
    figure("memory idle, PSS of the agent and one worker", f"{whole:.0f} MiB ({told})", "110 MiB")
    figure("processor idle, broker connected", f"{used:.2%} of a core", "0.5 %")
