"""A program on the device asks the live version over HTTP, beside the streams that it scores."""

import json

import numpy as np
import onnxruntime

from tests.world import zoo
from tests.world.asking import ask
from tests.world.site import Site
from tests.world.waiting import eventually

ROWS = np.random.default_rng(7).normal(size=(5, 8)).astype(np.float32)


def question(rows=ROWS):
    columns = [
        {"name": f"f{i}", "datatype": "FP32", "shape": [len(rows)], "data": rows[:, i].tolist()}
        for i in range(8)
    ]
    return {"id": "q1", "inputs": columns}


def infer(site, model, document):
    port = int(site.http.rpartition(":")[2])
    kind = {"Content-Type": "application/json"}
    path, body = f"/v2/models/{model}/infer", json.dumps(document).encode()
    heard = ask(port, path, kind, method="POST", body=body)
    return heard.status, json.loads(heard.text)


def test_what_is_asked_is_what_the_model_says_and_is_counted_nowhere(broker, tmp_path):
    """[http-8.3]"""
    with Site(broker, tmp_path) as site:
        site.start()
        package = zoo.mlp(tmp_path / "v1", name="m")
        site.deploy(package)
        session = onnxruntime.InferenceSession(package / "model.onnx")
        (score,) = session.run(None, {session.get_inputs()[0].name: ROWS})
        assert infer(site, "other", question())[0] == 404
        status, told = infer(site, "m", question())
        assert status == 200, told
        assert (told["model_name"], told["model_version"], told["id"]) == ("m", "1", "q1")
        given = {one["name"]: one for one in told["outputs"]}
        assert np.allclose(given["score"]["data"], score.ravel(), rtol=1e-5)
        status, told = infer(site, "m", question() | {"inputs": question()["inputs"][:7]})
        assert status == 400
        assert told["error"].startswith("inputs.f7 is missing; the features are f0, f1")
        assert site.model("m")["counts"]["in"] == 0
        site.deploy(zoo.mlp(tmp_path / "v2", name="m", bias=1.0))
        eventually(lambda: infer(site, "m", question())[1]["model_version"] == "2", 10)


def test_a_model_that_keeps_state_has_no_answer_to_a_row(broker, tmp_path):
    """[http-8.4]"""
    with Site(broker, tmp_path) as site:
        site.start()
        site.deploy(zoo.running_sum(tmp_path / "v1", name="m"))
        status, told = infer(site, "m", question())
        assert status == 400
        assert "it has no single rows" in told["error"]


def test_a_model_of_fixed_rows_answers_fewer_and_more(broker, tmp_path):
    """[http-8.3] Readings and questions alike."""
    with Site(broker, tmp_path) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m", batch=3))
        for rows in (1, 2, 3, 5):
            status, told = infer(site, "m", question(ROWS[:rows]))
            assert status == 200, told
            assert told["outputs"][0]["shape"] == [rows]
        reading = {"ts": 1_700_000_000, **{f"f{i}": 0.5 for i in range(8)}}
        site.readings([reading, reading | {"ts": 1_700_000_001}])
        site.scored("m", 2)
        assert site.model("m")["counts"]["rejected"] == {}
