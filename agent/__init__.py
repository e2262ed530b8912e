"""Edge model agent: pulls ONNX model versions, proves each swap, scores streams, says how it is.

The house, from the ground floor up (each may import only what is below it):

    core/      pure: values in, values out; the rollout table, the columns, the documents
    config.py, ports/   what may be set; what the agent needs of the world
    runtime/   moves: the lane that scores, the driver that swaps, the reporter that tells
    adapters/  translate: one technology per file; they never meet runtime
    worker/    the jailed child that holds one model version; imports numpy and onnxruntime only
    app/       introduces them to each other
    cli.py     the doorbell
    repository/   the publishing side; never imported on a device
"""

__version__ = "0.1.0"

__built__ = 1_795_219_200.0  # seconds since 1970, of this release: no clock before it is believed
