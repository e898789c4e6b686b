"""
Every knob of Greenroom: flag, variable (``GREENROOM_…``), key of the TOML file, unit, default and what 0 or none means.

Flags win over variables, variables over the file, the file over the defaults.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.client_address import network_problem
from gateway.dns_servers import dns_server
from gateway.network_rules import allowed_networks
from gateway.node_rules import gateway_networks
from gateway.store_urls import blobs_problem, records_problem, signals_problem


def default_data_dir() -> Path:
    """The named folder ``greenroom`` in the user's data directory."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "greenroom"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "greenroom"


def config_file() -> Path:
    """The TOML file: ``$GREENROOM_CONFIG``, else ``greenroom/config.toml`` in the user's configuration directory."""
    named = os.environ.get("GREENROOM_CONFIG")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "greenroom" / "config.toml"


def _listed(value: Any, separator: str) -> Any:
    """A list that stands in a variable or after ``--set``: with *separator* between its items, or as JSON."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(separator) if item.strip()]


class Settings(BaseSettings):
    """The effective settings of one process. Durations are seconds, sizes MiB or bytes as the name says."""

    model_config = SettingsConfigDict(env_prefix="GREENROOM_", extra="forbid", frozen=True)

    # Where and as what it serves
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8010, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    domain: str = Field(
        "localhost", description="Parent of all host names: <user>--<actor>.<domain>, <label>.runs.<domain>."
    )
    public_scheme: Literal["http", "https"] = Field("http", description="Scheme in printed and stored URLs.")
    public_port: int | None = Field(None, description="Port in printed and stored URLs; none: the one it listens on.")
    data: Path = Field(default_factory=default_data_dir, description="Folder for records, blobs, builds and logs.")
    launcher: Literal["process", "docker", "swarm"] = Field("process", description="What runs the Actors.")
    actors: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Actor folders to serve, or folders of Actor folders."
    )
    user: str = Field("local", description="Name of the first user, the administrator.")
    token: str | None = Field(
        None, repr=False, description="The first user's token; none: one is made in <data>/token."
    )
    token_file: Path | None = Field(None, description="Where the first user's token is read from or made.")
    trust_users: bool = Field(
        False,
        description="Let Actors of users other than the administrator run as processes of this machine, or in "
        "containers without network rules.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed."
    )
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )

    # Several processes, on one machine or many
    signals_url: str | None = Field(
        None,
        repr=False,
        description="The Redis by which processes hear of each other: redis://[USER:PASSWORD@]HOST:PORT/DB, rediss:// "
        "with TLS, redis+sentinel://HOST:PORT,HOST:PORT/DB?service=NAME, unix:///PATH; none: all is one process.",
    )
    records_url: str | None = Field(
        None,
        repr=False,
        description="The records: postgresql://USER:PASSWORD@HOST:PORT/DATABASE; none: SQLite in the data folder.",
    )
    blobs_url: str | None = Field(
        None,
        repr=False,
        description="Large values: s3://BUCKET[/PREFIX][?endpoint=http://HOST:PORT&region=NAME], with the keys in "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; none: a folder in the data folder.",
    )
    workers: int = Field(1, ge=1, le=256, description="Processes of 'greenroom gateway' that share its ports.")
    autoscaler_host: str = Field(
        "127.0.0.1",
        description="Address at which 'greenroom autoscaler' answers health, metrics and gateways that want live logs.",
    )
    autoscaler_port: int = Field(8011, ge=0, le=65535, description="Port of autoscaler_host; 0 takes a free one.")

    # TLS
    tls_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port that speaks TLS, beside the plain one; 0 takes a free one; none: no TLS.",
    )
    tls_certificates: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        max_length=64,
        validate_default=True,
        description="Folders of certificates, or certificates: <name>.pem or .crt with <name>.key beside it, or "
        "fullchain.pem with privkey.pem. Chosen by the names in them; the first serves all other names.",
    )
    http2: bool = Field(True, description="Offer HTTP/2: on the TLS port, and on the plain one to who begins with it.")

    # Containers
    docker_host: str | None = Field(
        None, description="The Docker engine's address; none: as DOCKER_HOST says, else its usual socket."
    )
    docker_subnet: str | None = Field(
        None, description="Subnet of the runs' network, e.g. 10.213.0.0/16; none: one that the engine finds free."
    )
    docker_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=64,
        description="Addresses or networks that runs may reach although they are private, or this machine's own, e.g. "
        "10.20.0.0/24; for 'greenroom network-rules'.",
    )
    docker_patience_secs: float = Field(
        30, ge=0, description="How long a start waits for an engine that does not answer; it may be restarting."
    )
    container_pids_limit: int = Field(1024, ge=16, description="Processes and threads that a container may have.")
    container_open_files_limit: int = Field(
        16384, ge=256, description="Open files of each process in a container; at most what the engine itself may have."
    )
    container_read_only: bool = Field(
        False, description="Containers can write to /tmp only (in memory), and to nothing else."
    )
    run_host: str | None = Field(
        None,
        description="Address at which runs reach Greenroom; none: 127.0.0.1, that of their network's bridge, or on "
        "Swarm that of the manager's node.",
    )
    registry: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:_/-]*[A-Za-z0-9])?$",
        max_length=200,
        description="Swarm: where images are pushed to and nodes get them from, e.g. registry.example.com:5000/actors; "
        "none: only the node that builds them runs them.",
    )
    swarm_constraints: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Swarm: where runs may be placed, e.g. node.labels.actors==true."
    )
    swarm_gateways: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=64,
        description="Swarm: addresses or networks from which runs are called; none: run_host. For 'greenroom "
        "network-rules --nodes'.",
    )
    swarm_node_engines: str | None = Field(
        None,
        pattern=r"^(tcp|https?)://.*\{address\}",
        description="Swarm: the engine of each node, e.g. tcp://{address}:2376 (certificates: DOCKER_CERT_PATH). With "
        "it a drained node leaves its runs time; none: they get SIGTERM at once, and limits are coarser.",
    )
    swarm_placement_secs: float = Field(
        30, gt=0, le=3600, description="Swarm: a start fails when no node has had room for so long."
    )
    swarm_leave_secs: float = Field(
        60,
        gt=0,
        le=3600,
        description="Swarm: how long runs may stay on a node that is drained, for migration and requests in flight.",
    )

    # Builds
    max_builds: int = Field(2, ge=1, le=64, description="Builds of images that may be made at once; others wait.")
    build_timeout_secs: float = Field(1800, gt=0, le=86_400, description="A build that takes longer is ended.")
    build_memory_mbytes: int = Field(
        4096, ge=128, le=1_048_576, description="Memory of each step of a build of an image."
    )
    docker_node_image: str = Field(
        "node:22-slim", min_length=1, description="Base image of Node.js Actors without a Dockerfile."
    )
    docker_python_image: str = Field(
        "python:3.12-slim", min_length=1, description="Base image of Python Actors without a Dockerfile."
    )
    image_keep_days: float = Field(
        7, ge=0, le=3650, description="How long images are kept that no tag points to and no run uses; 0: not at all."
    )
    allow_private_sources: bool = Field(
        False, description="Let builds fetch sources from addresses of this machine and of private networks."
    )

    # Custom domains
    dns_servers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=8,
        description="DNS servers that are asked whether a custom domain is proven, e.g. 9.9.9.9 or 127.0.0.1:5353; "
        "none: those of this machine.",
    )
    name_check_port: int = Field(
        80, ge=1, le=65535, description="Port at which http://<custom domain>/ is asked for its proof."
    )
    allow_private_names: bool = Field(
        False, description="Let custom domains be proven by HTTP at addresses of this machine and of private networks."
    )

    # Requests
    pick_timeout_secs: float = Field(120, gt=0, description="To find or start a run for a request.")
    first_byte_timeout_secs: float = Field(300, gt=0, description="From the request to the first byte of its answer.")
    connect_timeout_secs: float = Field(5, gt=0, description="To connect to a run's web server.")
    waiting_room_size: int = Field(1000, ge=1, description="Requests that may wait for one pool at once.")
    max_websocket_message_bytes: int = Field(16 * 1024 * 1024, ge=1024, description="Largest WebSocket message.")
    proxy_protocol: Literal["splice", "asgi"] = Field(
        "splice",
        description="HTTP/1.1 to proxied hosts: spliced by Greenroom's own protocol class, or by the ASGI proxy.",
    )
    head_timeout_secs: float = Field(30, gt=0, description="For the whole head of a request to come.")
    body_idle_timeout_secs: float = Field(60, gt=0, description="Between two pieces of a request's body.")
    keep_alive_secs: float = Field(75, gt=0, description="How long a caller's connection may lie idle.")
    max_connections: int = Field(10_000, ge=1, description="Connections of callers to each worker at once.")
    max_connections_per_address: int = Field(
        1000,
        ge=1,
        description="Of one address, unless it is this machine or one of trusted_proxies.",
    )
    max_head_bytes: int = Field(
        65_536, ge=1024, le=1_048_576, description="Largest head of a request, its first line included."
    )
    max_request_headers: int = Field(100, ge=1, le=1000, description="Headers that a request may have.")
    run_sync_timeout_secs: float = Field(
        300, gt=0, le=3600, description="How long a call that waits for a run's result waits."
    )
    max_api_body_bytes: int = Field(9_437_184, ge=1024, description="Largest body of an API call.")
    max_record_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, description="Largest record of a key-value store, decoded."
    )
    token_cache_secs: float = Field(
        5, ge=0, description="How long a verified token is believed without asking records."
    )

    # Runs
    readiness_timeout_secs: float = Field(
        120, gt=0, description="A standby run that doesn't answer for so long failed."
    )
    launch_timeout_secs: float = Field(
        300, gt=0, le=86_400, description="A start that its launcher has not brought about in so long has failed."
    )
    drain_timeout_secs: float = Field(
        300,
        gt=0,
        description="For requests in flight when a run is retired (sockets too), or a worker by a reload.",
    )
    wind_down_grace_secs: float = Field(
        15, gt=0, description="After 'aborting' until SIGTERM, and again until SIGKILL."
    )
    abort_grace_secs: float = Field(30, gt=0, description="A graceful abort's time before the run is killed.")
    migration_grace_secs: float = Field(
        30, gt=0, le=3600, description="After 'migrating' until the run is stopped and started again."
    )
    shutdown_timeout_secs: float = Field(30, gt=0, description="For everything to end when Greenroom is stopped.")
    max_runs: int = Field(500, ge=1, description="Runs that may live at once on this machine.")
    max_memory_mbytes: int | None = Field(
        None,
        ge=128,
        description="Memory of all runs and builds that may live at once; none: with docker, this machine's less a "
        "tenth (at least 512), else there is no limit.",
    )
    max_runs_per_user: int = Field(0, ge=0, description="Runs that one user may have at once; 0: no limit of his own.")
    max_memory_mbytes_per_user: int = Field(
        0, ge=0, description="Memory of all runs and builds of one user; 0: no limit of his own."
    )
    max_starting_runs_per_pool: int = Field(10, ge=1, description="Runs of one pool that may be starting at once.")
    max_starts_per_sec: float = Field(50, gt=0, description="Pace of starts over all pools.")
    max_log_chars: int = Field(10_485_760, ge=1000, description="Characters kept of one run's log.")
    port_range: Annotated[tuple[int, int], NoDecode] = Field(
        (21000, 30999), description="Ports for the web servers of process runs."
    )

    # The autoscaler
    tick_secs: float = Field(2, gt=0, description="The autoscaler looks at least so often.")
    demand_report_secs: float = Field(1, gt=0, description="Gateways report their demand so often.")
    decision_keep_days: float = Field(
        7, gt=0, le=3650, description="How long the autoscaler's decisions are kept, for 'greenroom explain'."
    )
    decisions_per_pool: int = Field(1000, ge=1, le=1_000_000, description="Decisions of each pool that are kept.")
    autoscaler_preset: Literal["greenroom", "platform"] = Field(
        "greenroom",
        description="How runs are scaled: by averages, what waiting costs, and load; or as on the platform, by "
        "requests in flight alone.",
    )
    autoscaler_thresholds: Annotated[dict[str, bool | int | float], NoDecode] = Field(
        {}, description='Thresholds of the autoscaler, as JSON or a TOML table, e.g. {"panic_window_secs": 10}.'
    )

    @field_validator("actors", "tls_certificates", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        """In a variable: as in PATH, ``dir1:dir2``."""
        return _listed(value, os.pathsep)

    @field_validator(
        "trusted_proxies", "docker_allow", "swarm_constraints", "swarm_gateways", "dns_servers", mode="before"
    )
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        """In a variable: ``10.0.0.1,10.1.0.0/16``."""
        return _listed(value, ",")

    @field_validator("autoscaler_thresholds", mode="before")
    @classmethod
    def _parse_thresholds(cls, value: Any) -> Any:
        """In a variable or after ``--set``: a JSON object."""
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _only_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if problem := network_problem(text):
                raise ValueError(problem)
        return value

    @field_validator("docker_allow")
    @classmethod
    def _allowed_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return allowed_networks(value)

    @field_validator("dns_servers")
    @classmethod
    def _only_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            dns_server(text)
        return value

    @field_validator("swarm_gateways")
    @classmethod
    def _gateways(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return gateway_networks(value)

    @field_validator("signals_url", "records_url", "blobs_url")
    @classmethod
    def _store_urls(cls, value: str | None, info: ValidationInfo) -> str | None:
        if not value:  # a variable that is set to nothing
            return None
        problems = {"signals_url": signals_problem, "records_url": records_problem, "blobs_url": blobs_problem}
        if problem := problems[str(info.field_name)](value):
            raise ValueError(problem)
        return value

    @field_validator("port_range", mode="before")
    @classmethod
    def _split_range(cls, value: Any) -> Any:
        """In a variable: ``21000-30999``."""
        return _listed(value, "-")

    @field_validator("tls_port")
    @classmethod
    def _another_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and value == info.data.get("port"):
            raise ValueError("another port than the plain one is expected, which runs reach Greenroom by")
        return value

    @field_validator("tls_certificates")
    @classmethod
    def _given_with_tls(cls, value: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        if info.data.get("tls_port") is not None and not value:
            raise ValueError("with tls_port, a folder with a certificate and its key is expected")
        return value

    @field_validator("domain")
    @classmethod
    def _plain_domain(cls, value: str) -> str:
        value = value.lower().rstrip(".")
        if not value or any(c not in "abcdefghijklmnopqrstuvwxyz0123456789.-" for c in value):
            raise ValueError("a DNS name such as localhost or actors.example.com is expected")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags (as init arguments), then variables, then the TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config_file())
