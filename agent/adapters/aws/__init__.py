"""The dialect of AWS IoT Core: named shadow, jobs, file streams.

`ThingLink` is the control link as the runtime knows it; the rest is how.  Nothing of it reaches the
core: what goes in and out are the native documents.
"""

from agent.adapters.aws.link import ThingLink
from agent.adapters.aws.topics import ThingTopics

__all__ = ["ThingLink", "ThingTopics"]
