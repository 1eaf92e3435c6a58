"""`zhiyi royalty`: who may pull what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from zhiyi.cli.session import session_of
from zhiyi.errors import BadInput
from zhiyi.types import NATIVE

app = typer.Typer(name="royalty", help="Show and pull the income of a model.", no_args_is_help=True)

ModelArgument = Annotated[int, typer.Argument(help="Model id.")]
TokenOption = Annotated[str, typer.Option(help="ERC-20 address; default: the chain's coin.")]


class Share(StrEnum):
    """Whose share is pulled."""

    OWNER = "owner"
    PLATFORM = "platform"
    COLLABORATOR = "collaborator"
    ANCESTOR = "ancestor"


@app.command()
def show(ctx: typer.Context, model_id: ModelArgument, token: TokenOption = NATIVE) -> None:
    """Income so far and what each share could pull now."""
    session = session_of(ctx)
    royalties = session.reader.royalties
    session.console.result(
        {
            "model_id": model_id,
            "gross": royalties.gross(model_id, token=token),
            "inherited": royalties.inherited(model_id, token=token),
            "claimable": royalties.claimable(model_id, token=token),
            "split": session.reader.models.get(model_id).royalties,
        }
    )


@app.command()
def pull(
    ctx: typer.Context,
    model_id: ModelArgument,
    share: Annotated[Share, typer.Argument(help="Whose share.")],
    which: Annotated[str | None, typer.Argument(help="Index, or a collaborator's address.")] = None,
    token: TokenOption = NATIVE,
) -> None:
    """Anyone: move a share into its owner's free balance in the vault."""
    session = session_of(ctx)
    royalties, dry = session.client.royalties, session.dry_run
    if share in (Share.OWNER, Share.PLATFORM):
        if which is not None:
            raise BadInput(f"there is one {share.value} share only: leave {which!r} out")
        pull = royalties.pull_owner if share is Share.OWNER else royalties.pull_platform
        session.show(pull(model_id, token=token, dry_run=dry))
        return
    if which is None:
        raise BadInput(f"say which {share.value}: an index, or (collaborators) an address")
    if share is Share.ANCESTOR:
        session.show(royalties.pull_ancestor(model_id, _index(which), token=token, dry_run=dry))
        return
    collaborator = which if which.startswith("0x") else _index(which)
    session.show(royalties.pull_collaborator(model_id, collaborator, token=token, dry_run=dry))


def _index(text: str) -> int:
    if not text.isdecimal() or len(text) > 4:
        raise BadInput(f"{text!r} is no index")
    return int(text)
