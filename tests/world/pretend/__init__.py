"""An accelerator that is not there: put this folder first on the path, and CUDA is."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
CONTROL = "CUDA_PRETENDED"  # a variable that workers inherit: the folder that says what goes wrong


def environ(control: Path) -> dict[str, str]:
    """For the agent's process.  In `control` each file is a fault that lasts while it is there:
    absent, hang, crash, lost, removed, memory, wrong.  `passed.jsonl` tells what was passed.
    """
    control.mkdir(exist_ok=True)
    return {"PYTHONPATH": os.pathsep.join([str(FOLDER), str(ROOT)]), CONTROL: str(control)}
