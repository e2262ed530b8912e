"""What a stream's payloads look like; nothing of where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    r"""One stream, as `[[stream]]` in agent.toml describes its payloads (interface.md §3).

    format   json | ndjson | csv | float32 | cbor | msgpack | sparkplug
    key      `{3}`: level 3 of the topic counted from 0, may be composed (`{1}-{3}`); else the path
             of a field; empty: one sensor, whose key is the empty string, but of Sparkplug
             GROUP/NODE or GROUP/NODE/DEVICE, of the topic
    time     path of the event time; empty: the time of arrival, but of Sparkplug the payload's own
    fields   our name -> path in the payload, `vib.rms` for a nested member (`\.` is a plain dot);
             a name that is not in here is its own path
    columns  what the columns are called, for float32 and for csv without a header
    units    our name -> unit, where the stream says it
    late_s   accepted lateness in event time, for windows
    """

    name: str
    format: str
    key: str = ""
    time: str = ""
    fields: Mapping[str, str]
    columns: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    late_s: float = 0.0
    time_s_max_ahead: float = 86400.0
    payload_bytes_max: int = 2**20
    keys_max: int = 100_000
