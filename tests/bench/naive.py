"""What people write today: a paho callback, json, one run per message, one publish per score.

    python -m tests.bench.naive URL MODEL.onnx QOS

The reference of the throughput benchmark; not a strawman: one session, one thread, no logging, and
the publish does not wait.
"""

import json
import sys
from urllib.parse import urlsplit

import numpy as np
import onnxruntime
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

FEATURES = [f"f{i}" for i in range(8)]


def main() -> None:
    url, model, qos = sys.argv[1], sys.argv[2], int(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)

    def on_connect(client, *_):
        client.subscribe("plant/+", qos)

    def on_subscribe(*_):
        print("ready", flush=True)

    def on_message(client, _, message):
        reading = json.loads(message.payload)
        x = np.array([[reading[name] for name in FEATURES]], np.float32)
        score = float(session.run(None, {"x": x})[0][0, 0])
        key = message.topic.rsplit("/", 1)[1]
        body = {"key": [key], "time": [reading["ts"]], "score": [score]}
        client.publish("edge/naive/scores/m", json.dumps(body), qos)

    client = mqtt.Client(CallbackAPIVersion.VERSION2, "naive", protocol=mqtt.MQTTv5)
    client.max_queued_messages_set(0)
    client.on_connect, client.on_message, client.on_subscribe = on_connect, on_message, on_subscribe
    parts = urlsplit(url)
    client.connect(parts.hostname, parts.port)
    client.loop_forever()


if __name__ == "__main__":
    main()
