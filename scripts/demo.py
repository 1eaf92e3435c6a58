#!/usr/bin/env python3
"""Plays the whole story on a real Anvil node, a real IPFS node and a real language model.

    make demo                      # sets everything up, then runs this and scripts/check_report.py
    scripts/demo.py --out DIR      # where everything that happens is written (default build/demo)

Leaves DIR/report.json; DIR/chain.json and DIR/ipfs hold the node and the objects for whoever checks the report.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the adversaries live with the tests
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # everything here is on loopback
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait do not burn the other core

from rich.console import Console  # noqa: E402

from devnode import Node, NodeError  # noqa: E402
from fetch_model import FetchError, ensure_model  # noqa: E402
from story import (  # noqa: E402
    accounts,
    appeal,
    buy,
    channel,
    cheated,
    desk,
    identity,
    judge,
    label,
    leak,
    model_sale,
    onward,
    oversight,
    register,
    report,
    serve,
    stage,
)
from zhiyi.errors import ZhiyiError  # noqa: E402
from zhiyi.ipfs_node import EmbeddedNode  # noqa: E402
from zhiyi_oracle.errors import OracleError  # noqa: E402
from zhiyi_watermark.errors import WatermarkError  # noqa: E402

MARKER = ".zhiyi-demo"  # only a folder that holds it, or nothing, is emptied


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument(
        "--rpc-port", type=int, default=None, help="port of the Anvil node (default: a free one)"
    )
    parser.add_argument("--plain", action="store_true", help="no colours and bars")
    args = parser.parse_args()
    console = Console(
        force_terminal=False if args.plain else None, width=None if sys.stdout.isatty() else 140
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started is stopped
    try:
        ended_well = play(args.out.resolve(), args.rpc_port, console)
    except (ZhiyiError, OracleError, WatermarkError, NodeError, FetchError, OSError, AssertionError) as exc:
        console.print(f"[red]demo stopped:[/red] {exc}", highlight=False)
        return 1
    return 0 if ended_well else 1


def play(out: Path, rpc_port: int | None, console: Console) -> bool:
    """The chapters, in order; everything started here is stopped here. True when the story ended as it has to."""
    _empty(out)
    source = ensure_model()
    ipfs_api = os.environ.get("ZHIYI_IPFS", "")
    embedded = None if ipfs_api else EmbeddedNode(out / "ipfs")
    with Node(port=rpc_port, state=out / "chain.json") as node:
        try:
            if embedded is not None:
                ipfs_api = embedded.start().api
            console.print(f"node {node.url}, IPFS {ipfs_api}", highlight=False)
            world = stage.build(out, node, ipfs_api, source, console)
            with world.chapter("The creator registers the model", "创作者登记模型"):
                register.play(world)
            with world.chapter("Two buyers ask for a license", "两位买家申请许可"):
                buy.play_requests(world)
            with world.chapter("Each gets a fingerprinted copy, fairly", "各得一份带指纹的副本，公平交付"):
                buy.play_purchases(world)
            with world.chapter("A cheat is caught", "作弊者被抓获"):
                cheated.play(world)
            with world.chapter("Cloud: answers carry their user", "云服务：回答带有用户标记"):
                serve.play(world)
            with world.chapter("A copy leaks and is traced", "副本泄露并被追溯"):
                leak.play(world)
            with world.chapter("Three operators judge", "三家预言机裁定"):
                judge.play(world)
            with world.chapter("Who somebody is", "实名认证"):
                identity.play(world)
            with world.chapter("The registrar's desk", "登记员的工作台：驳回、偏好、新版本"):
                desk.play(world)
            with world.chapter("A license lives on", "许可续期、转授权与转售"):
                onward.play(world)
            with world.chapter("Pay per use", "按次付费"):
                channel.play(world)
            with world.chapter("The copyright is sold", "版权转让"):
                model_sale.play(world)
            with world.chapter("The regulator looks in", "监管：投诉、问询、冻结与解冻"):
                oversight.play(world)
            with world.chapter("Labels are missing", "标识缺失：96 小时整改或撤销"):
                label.play(world)
            with world.chapter("A verdict is appealed", "裁定受到质疑：推翻、维持、冻结"):
                appeal.play(world)
            with world.chapter("Royalties, withdrawals, books", "版税、提款与账目"):
                accounts.play(world)
            return report.write(world)
        finally:
            if embedded is not None:
                embedded.stop()


def _empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise OSError(f"{out} is not empty and not a folder of this demo: name another with --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).touch()


if __name__ == "__main__":
    sys.exit(main())
