"""Unmodified vpp_papi reads the stats segment by the names that VPP has.

    stats.py API_SOCKET STATS_SOCKET
"""

import sys
import time

from vpp_papi import VPPApiClient
from vpp_papi.vpp_stats import VPPStats

client = VPPApiClient(server_address=sys.argv[1], bootstrapapi=True)
client.connect("stats.py")
api = client.api
stats = VPPStats(socketname=sys.argv[2])
stats.connect()
WORKERS = 2


def check(reply):
    assert reply.retval == 0, reply
    return reply


def wait(what, done):
    start = time.monotonic()
    while not done():
        assert time.monotonic() < start + 30, what
        time.sleep(0.02)


# Two interfaces, one with a slash in its name; packets from one to the other, and what cannot be routed.
pg = check(api.pg_create_interface_v3(interface_id=0)).sw_if_index
socket = check(api.memif_socket_filename_add_del_v2(is_add=True, socket_filename="m.sock")).socket_id
memif = check(api.memif_create_v2(role=0, id=0, socket_id=socket)).sw_if_index
check(api.sw_interface_set_flags(sw_if_index=pg, flags=1))
check(
    api.cli_inband(
        cmd="packet-generator new { name x limit 100 size 64-64 interface pg0 data { IP4: 02:00:00:00:00:01 -> "
        "02:00:00:00:00:02 UDP: 10.0.0.1 -> 10.0.0.2 UDP: 1 -> 2 incrementing 22 } }"
    )
)
check(api.pg_enable_disable(is_enabled=True, stream_name="x"))
wait("drops", lambda: stats["/if/drops"][:, pg].sum() == 100)

# Interfaces.
names = stats["/if/names"]
assert names[pg] == "pg0" and names[memif] == f"memif{socket}/0", names
for combined in ["rx", "tx"] + [d + "-" + k for d in ("rx", "tx") for k in ("unicast", "multicast", "broadcast")]:
    counter = stats["/if/" + combined]
    assert len(counter) == WORKERS + 1 and all(len(row) > memif for row in counter), combined
    want = (100, 6400) if combined == "rx" else (0, 0)
    for found in (counter[:, pg], stats["/interfaces/pg0/" + combined]):
        assert (found.sum_packets(), found.sum_octets()) == want, (combined, found)
for simple in "drops punt ip4 ip6 rx-no-buf rx-miss rx-error tx-error mpls".split():
    counter = stats["/if/" + simple]
    assert len(counter) == WORKERS + 1 and all(len(row) > memif for row in counter), simple
    want = 100 if simple == "drops" else 0
    assert counter[:, pg].sum() == stats["/interfaces/pg0/" + simple].sum() == want, (simple, counter)
    # VPP has no slash there either.
    assert stats[f"/interfaces/memif{socket}_0/{simple}"].sum() == 0

# Nodes.
number = stats["/sys/node/names"].index("pg-input")
for what in ["clocks", "vectors", "calls", "suspends"]:
    total = sum(row[number] for row in stats["/sys/node/" + what])
    assert stats["/nodes/pg-input/" + what].sum() >= total and (what == "suspends" or total > 0), what
assert stats["/nodes/pg-input/vectors"].sum() == 100
assert "/nodes/ip4-lookup/calls" in stats.directory and "/nodes/pg0-tx/calls" in stats.directory

# Errors.
assert stats["/err/ethernet-input/l3 mac mismatch"].sum() == 100
assert stats.get_err_counter("/err/ethernet-input/l3 mac mismatch") == 100
assert stats.set_errors() == {"/err/ethernet-input/l3 mac mismatch": 100}, stats.set_errors()
assert sum(map(sum, stats["/node/errors"])) == 100

# Buffers and memory.
pools = stats.ls("/buffer-pools/.*")
assert sorted(name.rsplit("/", 1)[1] for name in pools) == ["available", "cached", "used"], pools
assert stats["/buffer-pools/default-numa-0/available"] > 0
wait("memory", lambda: stats["/mem/stat segment/used"] > 0)
total, used, free = [stats["/mem/stat segment/" + part] for part in ("total", "used", "free")]
assert 0 < used < total and used + free == total

# The system.
assert stats["/sys/num_worker_threads"] == WORKERS
assert abs(stats["/sys/boottime"] - time.time()) < 600
for gauge in "last_update last_stats_clear input_rate vector_rate".split():
    assert stats["/sys/" + gauge] >= 0, gauge
beat = stats["/sys/heartbeat"]
wait("a heartbeat", lambda: stats["/sys/heartbeat"] > beat)
for rates in "vector_rate_per_worker loops_per_worker".split():
    [row] = stats["/sys/" + rates]
    assert len(row) == WORKERS + 1, (rates, row)

# Routes.
check(api.sw_interface_add_del_address(sw_if_index=pg, is_add=True, prefix="192.0.2.1/24"))
neighbour = dict(sw_if_index=pg, flags=1, mac_address="02:00:00:00:00:09", ip_address="192.0.2.2")
index = check(api.ip_neighbor_add_del(is_add=True, neighbor=neighbour)).stats_index
found = check(api.ip_route_lookup(table_id=0, exact=1, prefix="192.0.2.2/32"))
assert found.route.stats_index == index
assert stats["/net/adjacency"][:, index].sum_packets() == 0
mac = check(api.sw_interface_get_mac_address(sw_if_index=pg)).mac_address
check(
    api.cli_inband(
        cmd=f"packet-generator new {{ name y limit 30 size 100-100 interface pg0 data {{ IP4: 02:00:00:00:00:01 -> {mac} "
        "UDP: 192.0.2.7 -> 192.0.2.2 UDP: 1 -> 2 incrementing 58 } }"
    )
)
check(api.pg_enable_disable(is_enabled=True, stream_name="y"))
wait("routed packets", lambda: stats["/net/adjacency"][:, index].sum_packets() == 30)
assert stats["/if/ip4"][:, pg].sum() == 30 and stats["/if/tx"][:, pg].sum_packets() == 30

# What goes leaves no name behind.
check(api.memif_delete(sw_if_index=memif))
check(api.pg_delete_interface(sw_if_index=pg))
stats.refresh()
assert not [name for name in stats.directory if "pg0" in name or f"memif{socket}_0" in name]
client.disconnect()
stats.disconnect()
