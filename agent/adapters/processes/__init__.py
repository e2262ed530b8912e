"""Workers as processes.

engine     ProcessEngine, the Engine port
session    WorkerSession, the Session port: what waits, and what the lane calls
pipe       the hot path: jobs and answers through shared memory
child      one process: started, jailed, asked, ended
"""

from agent.adapters.processes.child import Limits
from agent.adapters.processes.engine import ProcessEngine

__all__ = ["Limits", "ProcessEngine"]
