"""The topics of one device (interface.md §5).  QoS 1 throughout."""

from dataclasses import dataclass


def is_filter(topic: str) -> bool:
    """Whether one can subscribe to it."""
    levels = topic.split("/")
    ok = all(("+" not in x and "#" not in x) or x in ("+", "#") for x in levels)
    return ok and "#" not in levels[:-1] and "\0" not in topic and len(topic.encode()) < 65536


@dataclass(frozen=True, slots=True)
class Topics:
    """Every topic of one device.  Made of configuration and checked ids only, never of payloads."""

    root: str
    device: str

    @property
    def desired(self) -> str:
        """What should run; retained."""
        return f"{self.root}/{self.device}/desired"

    @property
    def reported(self) -> str:
        """How the device is; retained."""
        return f"{self.root}/{self.device}/reported"

    @property
    def status(self) -> str:
        """Whether it is online; retained, and the will."""
        return f"{self.root}/{self.device}/status"

    @property
    def events(self) -> str:
        """What happened, as it happens."""
        return f"{self.root}/{self.device}/events"

    @property
    def commands(self) -> str:
        """The filter that takes every command."""
        return self.command("+")

    @property
    def repo_get(self) -> str:
        """Where the device asks for chunks."""
        return f"{self.root}/repo/get/{self.device}"

    @property
    def repo_data(self) -> str:
        """Where chunks come in."""
        return f"{self.root}/repo/data/{self.device}"

    def scores(self, model: str) -> str:
        """Where the scores of `model` go."""
        return f"{self.root}/{self.device}/scores/{model}"

    def command(self, name: str) -> str:
        """Where the command `name` comes in; never retained."""
        return f"{self.root}/{self.device}/command/{name}"

    def answer(self, id: str) -> str:  # noqa: A002 - it is the member `id` of the command
        """Where the answer to the command `id` goes if it named no response topic."""
        return f"{self.root}/{self.device}/answer/{id}"

    def group_desired(self, group: str) -> str:
        """What every device of `group` should run; retained."""
        return f"{self.root}/group/{group}/desired"

    def is_order(self, topic: str) -> bool:
        """Whether somebody takes orders at `topic`, so that no answer may go there."""
        if not topic.startswith(f"{self.root}/"):
            return False
        first, second, *_ = [*topic.removeprefix(f"{self.root}/").split("/"), ""]
        return first in {"group", "repo"} or second in {"desired", "command"}


def device_of(topic: str, root: str) -> str:
    """The device in `root`/DEVICE/… ; empty if the topic is not of that form."""
    rest = topic.removeprefix(f"{root}/")
    return "" if rest == topic else rest.partition("/")[0]
