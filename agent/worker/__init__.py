"""The jailed child that holds one model version.

It imports the standard library, numpy and onnxruntime, and nothing of the agent but this package
and the pure files of `agent.core` that its gate needs; it has no network, no secrets and no way to
write.  `isolation = "inline"` uses the same files in
process.

    __main__    the child: hello, the control thread, the loop that scores
    frames      how jobs and answers look on the data socket and in shared memory
    arena       the shared memory itself
    control     how everything else is asked: JSON, one answer per question
    loaded      one model in one onnxruntime session
    gate        what is refused before onnxruntime sees it
    admission   what the loaded graph has to be like
    providers   short names of execution providers, and how each is asked for
    refusals    why a model is not loaded, and who is to blame, in a sentence
    golden      whether the outputs a version was published with are reproduced
    priority    loading at the lowest scheduling class
    jail, seccomp   the layers that hold the child in
    bench       how fast each provider runs a model, for people who ask
    arrival     how it comes to its sockets and its errand
    launch, early   the agent's side: how it is started, perhaps before it is known what for
"""

import os

# Since 1.29 onnxruntime's official wheels keep a database under ~/.cache and send usage events to
# their maker, from import on.  An industrial device does neither.  It has to be said before the
# import, and everything that imports onnxruntime is in this package.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
