"""Deploys the system on any EVM chain and writes its address book. Repeat it after an interruption: it goes on.

\b
ape run deploy --network ethereum:sepolia:node --account ALIAS --out deployment.json \\
    --admin 0x… --treasury 0x… --appeal-authority 0x… --last-instance 0x… \\
    --holder GUARDIAN=0x… --holder PAUSER=0x…

The bytecode is the project's build (`make contracts`), the steps are `contracts_plan.plan`, run by `contracts_rollout`.
The account pays and creates; in the end it holds no role. --dry-run sends nothing and prints addresses and gas.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from ape.cli import ConnectedProviderCommand, account_option, network_option

sys.path.insert(0, str(Path(__file__).resolve().parent))  # `ape run` puts the folder above here

from ape_signer import ApeSigner
from contracts_plan import DEFAULT_SALT, Params
from contracts_rollout import artifacts, deploy, estimate, put_proxy
from zhiyi.chain import Chain, TxResult
from zhiyi.errors import ZhiyiError
from zhiyi.probe import Finding, probe, require
from zhiyi.roles import ROLES
from zhiyi.self_check import self_check


@click.command(cls=ConnectedProviderCommand, help=__doc__)
@network_option()
@account_option()
@click.option("--admin", required=True, help="A multisig: gets ADMIN and STEWARD with the delay.")
@click.option("--treasury", required=True, help="Gets platform fees and the rest of slashes.")
@click.option("--appeal-authority", required=True, help="Rules on challenges.")
@click.option("--last-instance", required=True, help="Rules when the appeal authority is silent.")
@click.option(
    "--holder",
    "holders",
    multiple=True,
    metavar="ROLE=ADDRESS",
    help=f"Repeatable; {', '.join(role for role in ROLES if role != 'ADMIN')}.",
)
@click.option("--platform-bps", type=int, default=Params.platform_bps, show_default=True)
@click.option("--contract-uri", default="", help="Metadata of the model collection (ERC-7572).")
@click.option(
    "--admin-delay",
    type=int,
    default=Params.admin_delay,
    show_default=True,
    help="Seconds; less than two days on development chains only.",
)
@click.option("--min-threshold", type=int, default=Params.min_threshold, show_default=True)
@click.option("--salt", default=DEFAULT_SALT, show_default=True, help="Another text, another deployment.")
@click.option("--chain-id", type=int, default=None, help="Refuse any other chain.")
@click.option("--put-proxy", "proxy", is_flag=True, help="Put the CREATE2 proxy on a chain that lacks it.")
@click.option("--dry-run", is_flag=True, help="Send nothing; print addresses and gas.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Address book to write.")
def cli(
    account: Any,
    provider: Any,
    holders: tuple[str, ...],
    salt: str,
    chain_id: int | None,
    proxy: bool,
    dry_run: bool,
    out: Path | None,
    **choices: Any,
) -> None:
    try:
        params = Params(holders=_by_role(holders), **choices)
        chain = Chain(provider.http_uri, signer=ApeSigner(account))
        _probe(chain, chain_id or provider.network.chain_id)
        if proxy and not dry_run:
            put_proxy(chain, _say)
        if dry_run:
            _print_estimates(chain, params, salt)
            return
        book = deploy(chain, params, salt=salt, say=_say)
        for finding in self_check(chain, book):
            _show(finding)
        target = out or Path(f"{book.chain_id}.json")
        book.save(target)
        click.echo(f"address book: {target}")
    except (ZhiyiError, ValueError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


def _by_role(holders: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for item in holders:
        role, _, account = item.partition("=")
        found[role] = (*found.get(role, ()), account)
    return found


def _probe(chain: Chain, expected: int) -> None:
    findings = probe(chain, signer_chain_id=expected)
    for finding in findings:
        if finding.state == "note":
            _show(finding)
    require(findings)


def _print_estimates(chain: Chain, params: Params, salt: str) -> None:
    lines = estimate(chain, params, artifacts(), salt=salt)
    for line in lines:
        click.echo(f"{line.step:<18} {line.address}  {f'{line.gas:>12,}' if line.gas else '       there'}")
    click.echo(f"{'about':<18} {'':<42}  {sum(line.gas for line in lines):>12,} gas")


def _say(text: str, result: TxResult | None) -> None:
    click.echo(f"{text}  gas {result.gas_used:,}" if result else text)


def _show(finding: Finding) -> None:
    click.echo(f"{finding.state:<6} {finding.what}: {finding.detail}")
    if finding.state != "ok":
        click.echo(f"{'':<7}{finding.detail_zh}")
