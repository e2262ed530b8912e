"""How far one model's work may pile up, and how long it may take."""

from dataclasses import dataclass

ROWS_WAITING_MAX = 65_536  # past this the stream is not read until batches have gone out


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one scoring."""

    on_overload: str = "block"  # or drop_oldest, sample; see `overload`
    rows_max: int = 1024  # of a batch
    wait_s: float = 0.0  # that a batch may wait to grow
    run_s_max: float = 10.0  # a run that takes longer is a hang
    tries_max: int = 4  # of one batch; a version is condemned before that (engine.deaths_max)
