"""The settings of the control planes that are not our own: `[azure]` and `[aws]`.  Pure."""

from typing import Annotated

from pydantic import Field

from agent.core.fields import Part, Seconds
from agent.core.names import ID_PATTERN


class Azure(Part):
    """The hub, where `control` is azure: IoT Edge tells a module all it needs to know."""

    connection_string_file: str = ""  # for development: a device's or module's; IoT Edge needs none
    ca_file: str = ""  # who vouches for the hub; else the trust bundle, else the system's
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    websockets: bool = False  # over `port`, which is then 443 for most
    token: Annotated[Seconds, Field(ge=2, le=86400)] = 3600.0  # how long one is good


class Aws(Part):
    """IoT Core, where `control` is aws: the thing proves itself with a certificate of its own."""

    endpoint: str = ""  # such as abc-ats.iot.eu-west-1.amazonaws.com
    thing: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_-]{0,128}$")] = ""  # default: device.id
    shadow: Annotated[str, Field(pattern=ID_PATTERN)] = "edge-model-agent"
    ca_file: str = ""  # Amazon's root; else the system's
    cert_file: str = ""
    key_file: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
