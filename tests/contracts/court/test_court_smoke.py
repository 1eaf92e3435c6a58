from courtroom import Courtroom, State, ETHER

def test_gas(room: Courtroom, license_id: int, books: None) -> None:
    other = room.place_license(2)
    for a in (room.reporter, room.holder, room.stranger, room.treasury, room.arbiter):
        room.vault.depositNative(a, sender=a, value=10*ETHER)
    for i, l in enumerate((license_id, other)):
        tx = None
        o = room.court.openCase.as_transaction if False else None
        file = room.open(l, value=0)
        import ape
        print("open", ape.chain.blocks.head.gas_used)
        if i: trace(ape.chain.blocks.head.transactions[0].txn_hash)
        room.open_share(file)
        print("share", ape.chain.blocks.head.gas_used)
        t = room.post(file)
        print("post", t.gas_used)
        room.past(file)
        t = room.call("execute", file)
        print("execute", t.gas_used)
        if i: trace(t.txn_hash)
    file = room.open(room.place_license(3), value=0)
    room.open_share(file)
    room.post(file)
    t = room.challenge(file, room.holder, value=0)
    print("challenge", t.gas_used)
    room.vault.withdraw
    t=room.call("rule", file, False, by=room.arbiter)
    print("rule overturn", t.gas_used)
    t=room.call("claimFee", file, 1)
    print("claim", t.gas_used)


def trace(h):
    import ape
    from collections import Counter
    r = ape.chain.provider.make_request("debug_traceTransaction", [h, {"disableMemory": True, "disableStack": False}])
    logs = r["structLogs"]
    by = Counter(); n = Counter(); sl = []
    for i, l in enumerate(logs):
        op = l["op"]; cost = l["gasCost"]
        if op in ("CALL", "STATICCALL", "DELEGATECALL"):
            # own cost = gas before - gas at first inner step - ... approximate
            nxt = logs[i+1]
            own = l["gas"] - nxt["gas"] if nxt["depth"] == l["depth"] else cost - nxt["gas"] if cost>nxt["gas"] else 0
            by[op+"*"] += own if own<20000 else 0; n[op+"*"] += 1
            sl.append((l["depth"], op, own))
        else:
            by[op] += cost; n[op] += 1
            if op in ("SSTORE","SLOAD","TLOAD","TSTORE") : sl.append((l["depth"], op, cost, hex(int(l["stack"][-1],16))[-6:]))
            if op.startswith("LOG"): sl.append((l["depth"], op, cost))
    for k, v in by.most_common(24): print("  ", k, n[k], v)
    for x in sl: print("     ", x)
