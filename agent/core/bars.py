"""The bars of a rollout: what a candidate must show in each phase; `judge` holds it to them."""

from typing import Annotated

from pydantic import Field

from agent.core.fields import Count, Part, Seconds, Share


class ShadowBar(Part):
    """What a candidate must show beside the active version before it may serve; 0 windows skips."""

    windows: Count = 0
    agreement: Share = 0.0
    score_distance: Annotated[float, Field(ge=0)] | None = None
    max: Seconds = 600.0


class CanaryBar(Part):
    """The share of sensors a candidate answers for before all; 0 skips."""

    share: Share = 0.0
    windows: Count = 0


class ProbationBar(Part):
    """What a promoted version must show before it is the known good."""

    windows: Count = 0
    time: Seconds = 0.0
    errors: Count = 0
    latency_ratio: Annotated[float, Field(gt=0)] | None = None


class Bars(Part):
    """The bars of a rollout; the desired document may override each."""

    shadow: ShadowBar = ShadowBar()
    canary: CanaryBar = CanaryBar()
    probation: ProbationBar = ProbationBar()
