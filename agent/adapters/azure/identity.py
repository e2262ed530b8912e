"""Who we are to the hub: as IoT Edge tells its modules, or by a connection string.  Pure."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from agent.core.errors import RefusedError

MODULE_VARIABLES = (
    "IOTEDGE_WORKLOADURI",
    "IOTEDGE_DEVICEID",
    "IOTEDGE_MODULEID",
    "IOTEDGE_IOTHUBHOSTNAME",
    "IOTEDGE_GATEWAYHOSTNAME",
    "IOTEDGE_MODULEGENERATIONID",
)
API_VERSION = "2021-04-12"  # of the hub; edgeHub wants one and does not look at it
WORKLOAD_VERSION = "2019-01-30"  # where the daemon names none


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A module or a device, and how it proves it: by the workload API, or with a key of its own.

    hub         host name of the IoT Hub, part of user name and token
    module      empty for a device
    gateway     host to connect to: the edge device, or the hub itself
    workload    URI of the workload API; empty where `key` is known
    """

    hub: str
    device: str
    module: str = ""
    gateway: str
    workload: str = ""
    workload_version: str = WORKLOAD_VERSION
    generation: str = ""
    key: bytes = b""

    @classmethod
    def of_module(cls, environ: Mapping[str, str]) -> "Identity":
        """What the IoT Edge daemon told a module.

        Raises:
            RefusedError: something is missing; the text says what.
        """
        missing = [name for name in MODULE_VARIABLES if not environ.get(name)]
        if missing:
            lacks = ", ".join(missing)
            advice = "run as an IoT Edge module, or set azure.connection_string_file"
            raise RefusedError(f"control is azure, but {lacks} is not set; {advice}")
        return cls(
            hub=environ["IOTEDGE_IOTHUBHOSTNAME"],
            device=environ["IOTEDGE_DEVICEID"],
            module=environ["IOTEDGE_MODULEID"],
            gateway=environ["IOTEDGE_GATEWAYHOSTNAME"],
            workload=environ["IOTEDGE_WORKLOADURI"],
            workload_version=environ.get("IOTEDGE_APIVERSION") or WORKLOAD_VERSION,
            generation=environ["IOTEDGE_MODULEGENERATIONID"],
        )

    @classmethod
    def of_connection_string(cls, text: str) -> "Identity":
        """A device's or module's connection string, as the portal shows it.

        Raises:
            RefusedError: it is none; its key is never part of the text.
        """
        parts = {
            key.strip(): value.strip()
            for key, found, value in (part.partition("=") for part in text.strip().split(";"))
            if found
        }
        missing = [n for n in ("HostName", "DeviceId", "SharedAccessKey") if not parts.get(n)]
        if missing:
            lacks = ", ".join(missing)
            raise RefusedError(f"the connection string has no {lacks}; copy it from the hub whole")
        try:
            key = base64.b64decode(parts["SharedAccessKey"], validate=True)
        except binascii.Error as error:
            raise RefusedError("SharedAccessKey in the connection string is not base64") from error
        return cls(
            hub=parts["HostName"],
            device=parts["DeviceId"],
            module=parts.get("ModuleId", ""),
            gateway=parts.get("GatewayHostName") or parts["HostName"],
            key=key,
        )

    @property
    def client_id(self) -> str:
        """As MQTT wants it; nobody else may use it."""
        return f"{self.device}/{self.module}" if self.module else self.device

    @property
    def username(self) -> str:
        """As MQTT wants it."""
        agent = quote("edge-model-agent", safe="")
        whole = f"{self.hub}/{self.client_id}/"
        return f"{whole}?api-version={API_VERSION}&DeviceClientType={agent}"

    @property
    def resource(self) -> str:
        """What a token is for, not yet encoded."""
        whole = f"{self.hub}/devices/{self.device}"
        return f"{whole}/modules/{self.module}" if self.module else whole
