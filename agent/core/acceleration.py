"""`[accelerators]` of agent.toml: what this device gives onnxruntime besides the wheel.

Native code is named here and nowhere else: no package can bring any.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from agent.core.accelerators import PROVIDERS, Outfit
from agent.core.fields import Part, Seconds

MB = 2**20


class Accelerators(Part):
    """What may be set.

    options     of providers, over those of the table: {openvino = {device_type = "GPU"}}
    libraries   of custom operators; their operator sets go into engine.domains
    extensions  onnxruntime-extensions, where it is installed: pre- and post-processing in the graph
    plugins     libraries of providers: {qnn = "/opt/qnn/libonnxruntime_providers_qnn.so"}
    catalogue   take the providers of Windows ML's catalogue as plugins
    memory_mb   of an accelerator's arena; 0: as much as it likes
    compiled    for whom compiled code is kept between starts; `all` keeps optimised CPU graphs too
    compiled_mb how much of it
    climb       how often a better provider than the one in use is tried; 0: never
    """

    options: dict[str, dict[str, str]] = Field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    extensions: bool = False
    plugins: dict[str, str] = Field(default_factory=dict)
    catalogue: bool = False
    memory_mb: Annotated[float, Field(ge=0, le=1_048_576)] = 0
    compiled: Literal["off", "accelerators", "all"] = "accelerators"
    compiled_mb: Annotated[float, Field(ge=1, le=1_048_576)] = 1024
    climb: Seconds = 600.0

    @field_validator("options", "plugins")
    @classmethod
    def _known(cls, by_provider: dict[str, object]) -> dict[str, object]:
        for name in by_provider:
            if name not in PROVIDERS:
                msg = f"unknown provider {name!r}; known are {', '.join(PROVIDERS)}"
                raise ValueError(msg)
        return by_provider

    def outfit(self) -> Outfit:
        """As a worker is told; the catalogue and the extensions are looked up by others."""
        return Outfit(
            options=self.options,
            libraries=self.libraries,
            plugins=self.plugins,
            memory_bytes=int(self.memory_mb * MB),
            compiled=self.compiled,
        )
