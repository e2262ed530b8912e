"""The dialect of Azure IoT Edge and IoT Hub: twin, direct methods, inputs and outputs.

`HubLink` is the control link as the runtime knows it; `Identity` says who we are to the hub; the
rest is how.  Nothing of it reaches the core: what goes in and out are the native documents.
"""

from agent.adapters.azure.identity import Identity
from agent.adapters.azure.link import HubLink
from agent.adapters.azure.tokens import HubLogin
from agent.adapters.azure.topics import HubTopics

__all__ = ["HubLink", "HubLogin", "HubTopics", "Identity"]
