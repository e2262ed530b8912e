"""What the agent takes while nothing happens: memory of all its processes, and processor."""

import time

import psutil

from tests.bench.stand import agent, cpu_s, quiet_broker

MIB = 2**20
SETTLE_S, LOOK_S = 5.0, 20.0


def test_memory_and_processor_while_idle(tmp_path):
    with quiet_broker() as broker, agent(broker, tmp_path / "agent", 1) as pid:
        time.sleep(SETTLE_S)
        before = cpu_s(pid)
        time.sleep(LOOK_S)
        used = (cpu_s(pid) - before) / LOOK_S
        root = psutil.Process(pid)
        parts = [process.memory_full_info() for process in (root, *root.children(recursive=True))]
        print(
            f"\nidle: {sum(part.pss for part in parts) / MIB:.0f} MiB PSS"
            f" ({', '.join(f'{part.pss / MIB:.0f}' for part in parts)}: the agent, its worker;"
            f" USS {', '.join(f'{part.uss / MIB:.0f}' for part in parts)}),"
            f" {used:.2%} of a core"
        )
