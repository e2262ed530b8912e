"""IoT Core's topics of one thing.  Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThingTopics:
    """The reserved topics of `thing` and its named shadow."""

    thing: str
    shadow_name: str

    @property
    def shadow(self) -> str:
        """Before what is asked of the shadow."""
        return f"$aws/things/{self.thing}/shadow/name/{self.shadow_name}"

    @property
    def jobs(self) -> str:
        """Before what is asked of jobs."""
        return f"$aws/things/{self.thing}/jobs"

    @property
    def streams(self) -> str:
        """Before what is asked of file streams."""
        return f"$aws/things/{self.thing}/streams"

    @property
    def subscriptions(self) -> list[str]:
        """All that is listened to beside commands; IoT Core takes eight at a time."""
        return [
            f"{self.shadow}/get/+",
            f"{self.shadow}/update/accepted",
            f"{self.shadow}/update/rejected",
            f"{self.shadow}/update/delta",
            f"{self.jobs}/notify-next",
            f"{self.jobs}/+/+/+",
            f"{self.streams}/+/+/json",
        ]
