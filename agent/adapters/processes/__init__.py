"""Workers as processes: the agent's side of `agent.worker`.

    engine     ProcessEngine, the Engine port
    session    WorkerSession, the Session port: what waits, and what the lane calls
    pipe       the hot path: jobs and answers through shared memory
    answers    what workers say, taken apart
    child      one process: started, asked, ended
    launch     the command, the environment and the thread it is started with
    footprint  how much memory one took at its worst
    limits     bounds of them all

onnxruntime is never imported on this side.
"""

from agent.adapters.processes.engine import ProcessEngine
from agent.adapters.processes.limits import Limits

__all__ = ["Limits", "ProcessEngine"]
