"""Settings and secret files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zhiyi.errors import ConfigError
from zhiyi_oracle.judge import config as settings
from zhiyi_oracle.judge.config import TEMPLATE, load
from zhiyi_oracle.logs import leave_out_secrets
from zhiyi_oracle.secret_files import check_private, private_folder, read_secret, write_private


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "oracle.toml"
    path.write_text(TEMPLATE)
    return path


def test_the_template_is_a_dry_run_with_paths_beside_it(file: Path) -> None:
    config = load(file, {})
    assert config.dry_run
    assert config.operator.folder == file.parent / "state"
    assert config.chain.deployment == file.parent / "deployment.json"
    assert config.max_evidence_bytes == 16 << 30


def test_a_file_without_the_switch_is_a_dry_run(file: Path) -> None:
    file.write_text("\n".join(line for line in TEMPLATE.splitlines() if not line.startswith("dry_run")))
    assert load(file, {}).dry_run


def test_the_environment_names_secret_files(file: Path, tmp_path: Path) -> None:
    config = load(file, {settings.SIGNER_KEY_ENV: str(tmp_path / "mounted")})
    assert config.operator.signer_key_file == tmp_path / "mounted"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("poll_s = 4.0", "poll_s = -1.0"),
        ("poll_s = 4.0", "poll = 4.0"),
        ("port = 9010", 'port = "9010"'),
        ('rpc = ["http://127.0.0.1:8545"]', "rpc = []"),
        ("[fees]", "[fee]"),
        ("[chain]", "chain = 3\n[x]"),
        ("dry_run = true", "dry_run = 1"),
        ("dry_run = true", "dry_run = "),
    ],
)
def test_a_wrong_setting_is_named(file: Path, before: str, after: str) -> None:
    assert before in TEMPLATE
    file.write_text(TEMPLATE.replace(before, after))
    with pytest.raises(ConfigError, match=r"oracle\.toml"):
        load(file, {})


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="zhiyi oracle init"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "huge.toml").write_bytes(b"#" * (settings.MAX_CONFIG_BYTES + 1))
    with pytest.raises(ConfigError, match="at most"):
        load(tmp_path / "huge.toml", {})


def test_secret_files_are_private_plain_and_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b" key \n")
    assert read_secret(path) == "key"
    with pytest.raises(ConfigError, match="already"):
        write_private(path, b"x")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match="plain file"):
        check_private(tmp_path / "link")
    path.chmod(0o604)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(path)
    path.chmod(0o600)
    path.write_text("  \n")
    with pytest.raises(ConfigError, match="empty"):
        read_secret(path)
    with pytest.raises(ConfigError, match="does not exist"):
        read_secret(tmp_path / "none")
    open_folder = tmp_path / "open"
    open_folder.mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        private_folder(open_folder)


def test_logs_leave_secrets_out() -> None:
    event = leave_out_secrets(
        None, "info", {"event": "x", "key": b"k", "seed": "s", "T": 7, "case_id": "0x1"}
    )
    assert event == {
        "event": "x",
        "key": "[left out]",
        "seed": "[left out]",
        "T": "[left out]",
        "case_id": "0x1",
    }
    json.dumps(event)
