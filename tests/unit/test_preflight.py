"""What a candidate promised against what it took here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import preflight
from agent.core.errors import MisfitError
from agent.core.manifest import Runtime
from agent.core.names import Digest, ModelRef
from agent.core.preflight import Measures

REF = ModelRef("m", 7, Digest(f"sha256:{'0' * 64}"))
amounts = st.floats(0.01, 1e6)


def test_what_keeps_its_promises_passes():
    preflight.check(REF, Runtime(), Measures((1e9,), 1, 1e9, 1e9))
    preflight.check(REF, Runtime(latency_ms_p99=5, memory_mb=100), Measures((1, 5), 10, 164))
    preflight.check(REF, Runtime(latency_ms_p99=5, memory_mb=400), Measures((), 0, 600))
    preflight.check(REF, Runtime(latency_ms_p99=5, memory_mb=100), Measures())


def test_what_is_too_slow_is_told_with_both_figures():
    """[jail-3.1]"""
    with pytest.raises(MisfitError) as caught:
        preflight.check(REF, Runtime(latency_ms_p99=5), Measures((1.0, 48.25), 10))
    assert "m:7: a run takes 48.2 ms here" in str(caught.value)
    assert "10 runs) and runtime.latency_ms_p99 promises 5;" in str(caught.value)


def test_what_is_too_large_is_told_with_both_figures():
    """[jail-3.2]"""
    with pytest.raises(MisfitError) as caught:
        preflight.check(REF, Runtime(memory_mb=100), Measures(rss_mb=165))
    assert "it takes 165 MB here and runtime.memory_mb says 100 (up to 164" in str(caught.value)


@given(amounts, amounts)
def test_memory_is_let_pass_up_to_half_more_or_64_mb(stated, took):
    def refused():
        try:
            preflight.check(REF, Runtime(memory_mb=stated), Measures(rss_mb=took))
        except MisfitError:
            return True
        return False

    assert refused() == (took > 1.5 * stated and took > stated + 64)
