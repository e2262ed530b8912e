"""The settings of the control planes that are not our own: `[azure]` and `[aws]`.  Pure."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from agent.core.manifest import Seconds


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Azure(_Section):
    """The hub, where `control` is azure: IoT Edge tells a module all it needs to know."""

    connection_string_file: str = ""  # for development: a device's or module's; IoT Edge needs none
    ca_file: str = ""  # who vouches for the hub; else the trust bundle, else the system's
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    websockets: bool = False  # over `port`, which is then 443 for most
    token: Annotated[Seconds, Field(ge=2, le=86400)] = 3600.0  # how long one is good
