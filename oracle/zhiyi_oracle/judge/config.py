"""An operator's settings: one TOML file, secrets in files of their own, dry run unless told otherwise."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from zhiyi.errors import ConfigError

MAX_CONFIG_BYTES: Final = 1 << 20
GIB: Final = 1 << 30
# Environment variables that name secret files; they win over the TOML file.
SIGNER_KEY_ENV: Final = "ZHIYI_ORACLE_SIGNER_KEY_FILE"
SIGNER_PASSWORD_ENV: Final = "ZHIYI_ORACLE_SIGNER_PASSWORD_FILE"  # noqa: S105  # the name of a variable
ENCRYPTION_KEY_ENV: Final = "ZHIYI_ORACLE_ENCRYPTION_KEY_FILE"

TEMPLATE: Final = """\
# Settings of one oracle operator. Paths are relative to this file. Secrets are files with mode 0600.
dry_run = true            # judge and record, but sign, show and send nothing

[chain]
rpc = ["http://127.0.0.1:8545"]   # several endpoints: the next one is used when one fails
deployment = "deployment.json"
start_block = 0

[ipfs]
api = "http://127.0.0.1:5001"
timeout_s = 60

[operator]
folder = "state"                    # database, evidence, results; mode 0700
signer_key_file = "signer.key"      # hex key or keystore v3; env ZHIYI_ORACLE_SIGNER_KEY_FILE wins
encryption_key_file = "x25519.key"  # opens sealed evidence; env ZHIYI_ORACLE_ENCRYPTION_KEY_FILE wins
# signer_password_file = "signer.password"

[http]
host = "127.0.0.1"
port = 9010

[judge]
poll_s = 4.0
turn_delay_s = 60          # seconds of chain time between the operators' turns to post
max_evidence_gib = 16

[fees]
max_fee_gwei = 100
bump_after_s = 60
min_balance_ether = 0.1
"""


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


PathText = Annotated[Path, BeforeValidator(_path)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ChainSection(_Section):
    """Where the record is."""

    rpc: Annotated[list[str], Field(min_length=1, max_length=16)]
    deployment: PathText
    start_block: Annotated[int, Field(ge=0)] = 0  # block of the deployment: nothing of ours is older


class IpfsSection(_Section):
    """Where evidence is fetched."""

    api: str
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0


class OperatorSection(_Section):
    """Who this operator is."""

    folder: PathText
    signer_key_file: PathText
    encryption_key_file: PathText
    signer_password_file: PathText | None = None


class HttpSection(_Section):
    """Where peers and monitors ask."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9010


class JudgeSection(_Section):
    """How cases are worked."""

    poll_s: Annotated[float, Field(gt=0, le=600)] = 4.0
    turn_delay_s: Annotated[int, Field(ge=0, le=86_400)] = 60
    max_evidence_gib: Annotated[int, Field(ge=1, le=4096)] = 16


class FeesSection(_Section):
    """What posting may cost."""

    max_fee_gwei: Annotated[float, Field(gt=0, le=100_000)] = 100.0
    bump_after_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    min_balance_ether: Annotated[float, Field(ge=0)] = 0.1


class JudgeConfig(_Section):
    """All settings of one operator."""

    dry_run: bool = True
    chain: ChainSection
    ipfs: IpfsSection
    operator: OperatorSection
    http: HttpSection = HttpSection()
    judge: JudgeSection = JudgeSection()
    fees: FeesSection = FeesSection()

    @property
    def max_evidence_bytes(self) -> int:
        """Largest sealed object that is fetched."""
        return self.judge.max_evidence_gib * GIB


def load(path: Path, environment: Mapping[str, str] = os.environ) -> JudgeConfig:
    """Reads and checks a settings file; relative paths become absolute by the file's folder.

    Raises:
        ConfigError: naming the file and the setting.
    """
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} has {size} bytes; a settings file has at most {MAX_CONFIG_BYTES}")
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ConfigError(
            f"settings file {path} does not exist; make one with `zhiyi oracle init {path}`"
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    operator = raw.get("operator")
    if isinstance(operator, dict):
        for variable, name in (
            (SIGNER_KEY_ENV, "signer_key_file"),
            (SIGNER_PASSWORD_ENV, "signer_password_file"),
            (ENCRYPTION_KEY_ENV, "encryption_key_file"),
        ):
            if variable in environment:
                operator[name] = str(Path(environment[variable]).absolute())
    try:
        config = JudgeConfig.model_validate(raw)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path}: setting {where}: {first['msg']}; see `zhiyi oracle init` for all settings"
        ) from exc
    here = path.absolute().parent

    def under(value: Path) -> Path:
        return value if value.is_absolute() else here / value

    operator_section = config.operator.model_copy(
        update={
            "folder": under(config.operator.folder),
            "signer_key_file": under(config.operator.signer_key_file),
            "encryption_key_file": under(config.operator.encryption_key_file),
            "signer_password_file": (
                under(config.operator.signer_password_file) if config.operator.signer_password_file else None
            ),
        }
    )
    chain = config.chain.model_copy(update={"deployment": under(config.chain.deployment)})
    return config.model_copy(update={"operator": operator_section, "chain": chain})
