"""The pure parts of IoT Core's dialect: what a report says of a job, and blocks of file streams."""

import base64
import hashlib

from hypothesis import given
from hypothesis import strategies as st

from agent.adapters.aws.files import REQUEST_BYTES_MAX, Files
from agent.adapters.aws.jobs import Job, judged
from agent.core.chunks import Rejection, Request, etag_of_digest
from agent.core.mirrors import Mirror, size_of

DIGEST = f"sha256:{hashlib.sha256(b'x').hexdigest()}"
STREAM = {"id": "s1", "files": {DIGEST: 3}, "metadata": 0}


def job(**models):
    return Job("j", 1, 1, "IN_PROGRESS", {"models": models}, revision=5)


def report(revision=5, code=200, why="", **models):
    return {"revision": revision, "code": code, "why": why, "models": models}


def model(release, phase="steady", **more):
    return {"known_good": {"release": release}, "phase": phase, "progress": 0.42, **more}


# ---- jobs ----------------------------------------------------------------------------------------


def test_a_job_succeeds_when_every_model_is_committed_or_gone():
    """[aws-3.1]"""
    order = job(m={"release": 7}, n=None)
    assert judged(order, report(m=model(7), n=model(1)), settled=False).status == "IN_PROGRESS"
    assert judged(order, report(m=model(6)), settled=False).status == "IN_PROGRESS"
    assert judged(order, report(m=model(7)), settled=False).status == "SUCCEEDED"
    assert judged(order, report(4, m=model(7)), settled=True).status == "IN_PROGRESS"


def test_a_job_fails_with_the_reason_once_its_model_has_moved_and_come_back():
    """[aws-3.2]"""
    order = job(m={"release": 7})
    old = model(6, why="m:5 failed probation")
    assert judged(order, report(m=old), settled=False).status == "IN_PROGRESS"  # of another time
    going = judged(order, report(m=model(6, "shadow", candidate={"release": 7})), settled=False)
    assert going.detail == "m: shadow 40 %"
    ended = judged(order, report(m=model(6, why="it crashed")), settled=False)
    assert (ended.status, ended.detail) == ("FAILED", "m: it crashed")
    misfit = model(6, why="too large", state="Unschedulable")
    assert judged(order, report(m=misfit), settled=False).status == "REJECTED"


def test_what_is_refused_is_rejected_and_weather_is_waited_for():
    """[aws-3.3]"""
    order = job(m={"release": 7})
    refused = report(code=404, why="unknown: m is not offered", m=model(6, why="of before"))
    assert judged(order, refused, settled=False).status == "REJECTED"
    others = report(code=404, why="unknown: mm is not offered", m=model(6))
    assert judged(order, others, settled=False).status == "IN_PROGRESS"
    waiting = model(6, why="waiting for the repository: away")
    assert judged(order, report(m=waiting), settled=True).status == "IN_PROGRESS"
    assert judged(order, report(m=model(6)), settled=True).status == "FAILED"


# ---- file streams --------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=40, unique=True).map(sorted),
    st.sampled_from([256, 4096, 65_536]),
)
def test_every_block_is_asked_for_once_within_what_a_request_may_hold(blocks, block_bytes):
    """[aws-4.2]"""
    files = Files()
    files.offered(STREAM)
    files.described({"s": 2, "r": [{"f": 0, "z": 9}, {"f": 3, "z": 10**8}]})
    request = Request("t", DIGEST, tuple(blocks), 10**8, block_bytes)
    asked = []
    for document in files.asked(request):
        bits = int.from_bytes(bytes.fromhex(document["b"].removeprefix("0x")), "little")
        these = [document["o"] + i for i in range(bits.bit_length()) if bits >> i & 1]
        assert document["n"] == len(these)
        assert document["n"] * document["l"] <= REQUEST_BYTES_MAX
        asked += these
    assert asked == blocks


def test_the_bitmap_is_the_one_of_the_documentation():
    files = Files()
    files.offered(STREAM)
    files.described({"s": 2, "r": [{"f": 3, "z": 10**6}]})
    (document,) = files.asked(Request("t", DIGEST, (20, 21, 24, 43), 10**6, 256))
    assert (document["o"], document["b"]) == (20, "0x130080")


def test_a_block_that_comes_is_a_native_one_and_others_are_left():
    files = Files()
    files.offered(STREAM)
    files.described({"s": 2, "r": [{"f": 3, "z": 300}]})
    list(files.asked(Request("t", DIGEST, (1,), 300, 256)))
    data = {"c": "t", "f": 3, "l": 44, "i": 1, "p": base64.b64encode(b"y" * 44).decode()}
    block = files.came(data)
    assert (block.index, block.block_bytes, block.size) == (1, 256, 300)
    assert (block.etag, block.body) == (etag_of_digest(DIGEST), b"y" * 44)
    for wrong in ({"c": "u"}, {"f": 4}, {"i": "1"}, {"p": "!"}):
        assert files.came({**data, **wrong}) is None
    told = files.rejected({"c": "t", "o": "ResourceNotFound", "m": "gone"})
    assert (told.id, told.why) == ("t", "ResourceNotFound: gone")
    missing = files.asked(Request("t", f"sha256:{'0' * 64}", (0,), 1, 256))
    assert isinstance(missing, Rejection)


# ---- the shadow ----------------------------------------------------------------------------------


def test_a_report_keeps_within_what_the_shadow_has_left():
    """[aws-2.2]"""
    models = {
        f"m{n}": {"state": "Healthy", "receipt": {"a": {"b": {"c": 1}}}, "phase": "steady"}
        for n in range(200)
    }
    image = Mirror(text_bytes_max=1024, depth_max=6, escapes=False).image({"models": models}, 7000)
    assert size_of(image) <= 7000
    assert image["left_out"][0] == "receipt"
    assert len(image["models"]) > 100
