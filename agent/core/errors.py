"""Ways to fail, by who is to blame.  Anything else that is raised is a bug and ends the process.

    UnavailableError    weather: the world said no; worth retrying, nobody is to blame
    DamagedError        weather too: what came is not what was signed.  Fetched again it may be; the
                        digest that was promised is not to blame and is never quarantined for it
    MisfitError         these bytes do not fit this device (memory, provider, opset): not tried
                        again until the wish or the device changes, and not quarantined
    UnfitError          verdict: these bytes are bad; never worth retrying: quarantined
    UnprovenError       nobody's fault: a version did not show in time what was demanded of it; the
                        same wish may be made again
    RefusedError        a wish, a document or a payload that cannot be taken; nothing changes

The text of each is one sentence for a person: what happened, and what to do if anything can be.
"""


class UnavailableError(Exception):
    """Weather: the world said no.  Worth retrying; nobody is to blame."""


class DamagedError(UnavailableError):
    """What came is not what was signed: fetch it again, but not for ever."""


class MisfitError(Exception):
    """These bytes do not fit this device.  Another device might run them; this one will not."""


class UnfitError(Exception):
    """Verdict: these bytes are bad.  Never worth retrying."""


class UnprovenError(Exception):
    """A version did not show in time what was demanded of it.  Nobody is to blame."""


class RefusedError(Exception):
    """What was asked cannot be taken.  `code` follows HTTP (400 malformed, 404 unknown, 409 …)."""

    def __init__(self, why: str, code: int = 400) -> None:
        super().__init__(why)
        self.code = code
