"""The test node without Ape's work on every transaction: one HTTP request a step, one for all that is read after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import requests
from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

GAS = 3_000_000


class Function(NamedTuple):
    """One function of an ABI."""

    name: str
    selector: bytes
    inputs: tuple[str, ...]  # canonical types
    outputs: tuple[str, ...]
    mutability: str


class Event(NamedTuple):
    """One event of an ABI."""

    name: str
    fields: tuple[tuple[str, str, bool], ...]  # name, canonical type, indexed


class Log(NamedTuple):
    """A decoded event; `args` by the names of the ABI."""

    contract: str
    name: str
    args: dict[str, Any]
    time: int


@dataclass(frozen=True)
class Face:
    """A deployed contract: its address, and what its ABI knows."""

    name: str
    address: str
    abi: list[dict[str, Any]] = field(repr=False)

    @cached_property
    def functions(self) -> dict[str, Function]:
        """By name, the last of several with one name."""
        return {f.name: f for f in self.all_functions}

    @cached_property
    def all_functions(self) -> list[Function]:
        found = []
        for item in self.abi:
            if item["type"] == "function":
                inputs = tuple(canonical(i) for i in item["inputs"])
                outputs = tuple(canonical(o) for o in item.get("outputs") or [])
                found.append(Function(item["name"], selector(item), inputs, outputs, item["stateMutability"]))
        return found

    @cached_property
    def events(self) -> dict[bytes, Event]:
        """By topic."""
        found = {}
        for item in self.abi:
            if item["type"] == "event":
                fields = tuple((i["name"], canonical(i), bool(i.get("indexed"))) for i in item["inputs"])
                topic = keccak(text=f"{item['name']}({','.join(kind for _, kind, _ in fields)})")
                found[topic] = Event(item["name"], fields)
        return found

    @cached_property
    def errors(self) -> dict[bytes, str]:
        """Names by selector."""
        return {selector(item): item["name"] for item in self.abi if item["type"] == "error"}

    def data(self, function: str, *arguments: Any) -> bytes:
        """The calldata of a call."""
        f = self.functions[function]
        return f.selector + encode(f.inputs, arguments)


def canonical(item: dict[str, Any]) -> str:
    """A parameter's type as selectors spell it."""
    kind = str(item["type"])
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(canonical(part) for part in item['components'])}){kind.removeprefix('tuple')}"


def selector(item: dict[str, Any]) -> bytes:
    """Of a function or an error of an ABI."""
    return keccak(text=f"{item['name']}({','.join(map(canonical, item['inputs']))})")[:4]


class Reverted(Exception):
    """A call or transaction that reverted."""

    def __init__(self, error: str, data: bytes) -> None:
        super().__init__(error)
        self.error, self.data = error, data


class Node:
    """JSON-RPC of one node, in batches."""

    def __init__(self, url: str, faces: list[Face]) -> None:
        self.url = url
        self.session = requests.Session()
        self.faces = {face.address.lower(): face for face in faces}
        self.errors = {selector: name for face in faces for selector, name in face.errors.items()}
        self._sent = 0

    def batch(self, *asked: tuple[str, list[Any]]) -> list[dict[str, Any]]:
        """The answers, in order; an answer has `result` or `error`."""
        body = [
            {"jsonrpc": "2.0", "id": i, "method": method, "params": params}
            for i, (method, params) in enumerate(asked)
        ]
        answers: list[dict[str, Any]] = self.session.post(self.url, json=body, timeout=60).json()
        return sorted(answers, key=lambda answer: int(answer["id"]))

    def ask(self, method: str, *params: Any) -> Any:
        (answer,) = self.batch((method, list(params)))
        assert "error" not in answer, answer
        return answer["result"]

    def send(
        self, to: str, data: bytes, *, sender: str, value: int = 0, time: int | None = None
    ) -> list[Log]:
        """A transaction of an unlocked account in a block of its own, at `time`; its events. Raises Reverted.

        Each has another gas limit: the same call after the node went back would be the same transaction."""
        self._sent += 1
        gas = hex(GAS - self._sent % 1000)
        call = {"from": sender, "to": to, "data": "0x" + data.hex(), "value": hex(value), "gas": gas}
        ahead = [] if time is None else [("evm_setNextBlockTimestamp", [time])]
        *_, answer = self.batch(*ahead, ("eth_sendTransactionSync", [call]))
        if "error" in answer:
            raise self._reverted(answer["error"])
        receipt = answer["result"]
        if receipt["status"] != "0x1":
            before = hex(int(receipt["blockNumber"], 16) - 1)
            when = {} if time is None else {"time": hex(time)}
            (again,) = self.batch(("eth_call", [call, before, {}, when]))
            raise self._reverted(again.get("error", {}))
        return [found for found in map(self.decoded, receipt["logs"]) if found is not None]

    def simulate(self, to: str, data: bytes, *, sender: str, value: int = 0, time: int) -> bytes:
        """What the transaction would return in a block of that time. Raises Reverted."""
        (answer,) = self.simulate_all([(to, data, sender, value)], time)
        if isinstance(answer, Reverted):
            raise answer
        return answer

    def simulate_all(self, calls: list[tuple[str, bytes, str, int]], time: int) -> list[bytes | Reverted]:
        """Each of (to, data, sender, value) alone, on the present state in a block of that time."""
        if not calls:
            return []
        answers = self.batch(
            *(
                (
                    "eth_call",
                    [
                        {
                            "from": sender,
                            "to": to,
                            "data": "0x" + data.hex(),
                            "value": hex(value),
                            "gas": hex(GAS),
                        },
                        "latest",
                        {},
                        {"time": hex(time)},
                    ],
                )
                for to, data, sender, value in calls
            )
        )
        return [
            self._reverted(a["error"]) if "error" in a else bytes.fromhex(a["result"][2:]) for a in answers
        ]

    def changes(self, to: str, data: bytes, *, sender: str, value: int = 0, time: int) -> set[str]:
        """The known contracts, by name, whose storage or coins the transaction would change."""
        call = {"from": sender, "to": to, "data": "0x" + data.hex(), "value": hex(value)}
        options = {
            "tracer": "prestateTracer", "tracerConfig": {"diffMode": True}, "blockOverrides": {"time": hex(time)},
        }  # fmt: skip
        after = self.ask("debug_traceCall", call, "latest", options)["post"]
        touched = {
            address for address, account in after.items() if set(account) - {"nonce"}
        }  # a sender's nonce
        return {face.name for address, face in self.faces.items() if address in touched}

    def read(self, *calls: tuple[Any, ...]) -> list[Any]:
        """What views return, each call (face, function, *arguments); a struct or several values come as a tuple."""
        asked = [
            ("eth_call", [{"to": face.address, "data": "0x" + face.data(name, *arguments).hex()}, "latest"])
            for face, name, *arguments in calls
        ]
        results = []
        for (face, name, *_), answer in zip(calls, self.batch(*asked) if asked else [], strict=True):
            assert "error" not in answer, (name, self._reverted(answer["error"]))
            values = decode(face.functions[name].outputs, bytes.fromhex(answer["result"][2:]))
            results.append(values[0] if len(values) == 1 else values)
        return results

    def decoded(self, log: dict[str, Any]) -> Log | None:
        """An event of a known contract; addresses in checksum form."""
        face = self.faces.get(log["address"].lower())
        if face is None:
            return None
        event = face.events.get(bytes.fromhex(log["topics"][0][2:]))
        assert event is not None, f"{face.name} emitted an event that its ABI lacks: {log}"
        topics = iter(bytes.fromhex(topic[2:]) for topic in log["topics"][1:])
        plain = [kind for _, kind, indexed in event.fields if not indexed]
        values = iter(decode(plain, bytes.fromhex(log["data"][2:])))
        args = {}
        for name, kind, indexed in event.fields:
            value = _of_topic(kind, next(topics)) if indexed else next(values)
            args[name] = to_checksum_address(value) if kind == "address" else value
        return Log(face.name, event.name, args, int(log["blockTimestamp"], 16))

    def _reverted(self, error: dict[str, Any]) -> Reverted:
        raw = error.get("data")
        data = bytes.fromhex(raw[2:]) if isinstance(raw, str) else b""
        return Reverted(self.errors.get(data[:4], f"0x{data[:4].hex()} {error.get('message', '')}"), data)


def _of_topic(kind: str, topic: bytes) -> Any:
    """An indexed value; of one that does not fit a word, its hash."""
    hashed = kind in ("string", "bytes") or kind.endswith("]") or kind.startswith("(")
    return topic if hashed else decode([kind], topic)[0]
