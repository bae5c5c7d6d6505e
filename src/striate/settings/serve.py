"""Settings of `serve`: every field is a flag."""

from __future__ import annotations

from pydantic import Field, field_validator

from striate.settings.base import Settings


class ServeSettings(Settings):
    """Settings of `serve`."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 lets other machines in")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0: any that is free")
    token: str | None = Field(None, description="clients have to send it; better as STRIATE_TOKEN than as a flag")
    allow_host: tuple[str, ...] | None = Field(
        None, description="names by which clients may call the server; default: any, on this machine localhost"
    )
    allow_origin: tuple[str, ...] | None = Field(
        None, description="web pages of other addresses that may ask the server: https://example.org; default: none"
    )
    workers: int = Field(1, ge=1, le=64, description="processes that answer; one that dies is replaced")
    model: str | None = Field(None, description="net.py:MyNet, for runs of your own net")
    threads: int = Field(0, ge=0, description="threads of the net; 0: one for each core")
    decoders: int = Field(0, ge=0, le=64, description="threads that decode pictures; 0: one for each core")
    max_batch: int = Field(64, ge=1, description="pictures the net is asked at once, at most")
    max_wait: float = Field(
        2.0, ge=0, le=1_000, allow_inf_nan=False, description="milliseconds a picture waits for others to join it"
    )
    max_queue: int = Field(1_000, ge=1, description="pictures that may wait for each model, at most")
    max_body: float = Field(
        20.0, gt=0, allow_inf_nan=False, description="megabytes of a body, also when it is decompressed"
    )
    max_memory: float = Field(
        256.0, gt=0, allow_inf_nan=False, description="megabytes that all bodies may take together"
    )
    max_pixels: int = Field(50_000_000, ge=1, description="pixels of a picture")
    max_parts: int = Field(100, ge=1, description="pictures in one request")
    max_seconds: float = Field(30.0, gt=0, allow_inf_nan=False, description="seconds that a request may take")
    max_connections: int = Field(2_000, ge=1, description="connections of each process; one more is told to come again")
    keep_alive: float = Field(
        15.0, ge=1, le=3_600, allow_inf_nan=False, description="seconds of silence between requests on a connection"
    )
    drain: float = Field(
        1.0, ge=0, le=5, allow_inf_nan=False, description="seconds from not ready to closed when the server stops"
    )
    log: bool = Field(True, description="a line of JSON on stderr for each request")

    @field_validator("allow_host", "allow_origin", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("token")
    @classmethod
    def _token(cls, value: str | None) -> str | None:
        if value is not None and not (len(value) >= 8 and value.isascii() and value.isprintable() and " " not in value):
            raise ValueError("a token has at least 8 characters, letters and digits without spaces")
        return value
