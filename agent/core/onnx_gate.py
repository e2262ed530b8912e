"""What a device lets pass of an ONNX file before onnxruntime sees a byte of it.

Pure: the file as a buffer and the sizes of the files beside it come in, facts or a refusal come
out.  It is a gate and no judge: what passes is still loaded in a jail.
"""

from collections.abc import Collection, Mapping

from agent.core.errors import UnfitError
from agent.core.onnx_file import OnnxFacts, inspect
from agent.core.protobuf import Buffer

MODEL_BYTES_MAX = 2**31 - 1  # protobuf reads no more; larger models keep their weights beside them
# ONNX's own, and those that every build of onnxruntime brings along.
DOMAINS = frozenset(
    {
        "",
        "ai.onnx.ml",
        "ai.onnx.training",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.dml",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)
# Holds, or names by any path, a program compiled for one accelerator, which nobody can look into.
COMPILED = "EPContext"


def admit(raw: Buffer, files: Mapping[str, int], domains: Collection[str] = ()) -> OnnxFacts:
    """The facts of the model in `raw`, which may be loaded.

    `files` are the package's, name -> bytes; `domains` are allowed beside DOMAINS.

    Raises:
        UnfitError: it may not; one sentence.
    """
    if len(raw) == 0:
        raise UnfitError("the model file is empty")
    if len(raw) > MODEL_BYTES_MAX:
        raise UnfitError(
            f"the model file has {len(raw)} bytes and protobuf ends at {MODEL_BYTES_MAX}; keep its"
            " weights in a file of their own"
        )
    facts = inspect(raw)
    for name in facts.external:
        if name not in files:
            raise UnfitError(f"the model keeps weights in {name}, which is not in its package")
        if facts.reach[name] > files[name]:
            raise UnfitError(
                f"the model wants {name} up to byte {facts.reach[name]}, and it has {files[name]}"
            )
    for domain, operator in sorted(facts.operators):
        if domain not in DOMAINS and domain not in domains:
            raise UnfitError(
                f"node type {operator} is from {domain}, a library of custom operators; none is"
                " loaded"
            )
        if operator == COMPILED:
            raise UnfitError(
                "the model carries a program compiled for one accelerator (EPContext); publish the"
                " model that it was made from"
            )
    return facts
