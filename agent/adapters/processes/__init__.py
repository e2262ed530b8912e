"""Workers as processes: the agent's side of `agent.worker`.

    engine     ProcessEngine, the Engine port
    session    WorkerSession, the Session port: what waits, and what the lane calls
    pipe       the hot path: jobs and answers through shared memory
    birth      how a worker comes to hold its version, on whom, and who is to blame if it does not
    choosing   which provider `auto` stands for
    compiled   optimised graphs and engines, kept between starts
    answers    what workers say, taken apart
    child      one process: started, asked, ended
    footprint  how much memory one took at its worst
    limits     bounds of them all

onnxruntime is never imported on this side.
"""

from agent.adapters.processes.compiled import Compiled
from agent.adapters.processes.engine import ProcessEngine
from agent.adapters.processes.limits import Limits

__all__ = ["Compiled", "Limits", "ProcessEngine"]
