"""Unmodified vpp_papi reads the packets of each route, where they are counted one by one.

    route_counters.py API_SOCKET STATS_SOCKET
"""

import sys
import time

from vpp_papi import VPPApiClient
from vpp_papi.vpp_stats import VPPStats

client = VPPApiClient(server_address=sys.argv[1], bootstrapapi=True)
client.connect("route_counters.py")
api = client.api
stats = VPPStats(socketname=sys.argv[2])
stats.connect()


def check(reply):
    assert reply.retval == 0, reply
    return reply


pg = check(api.pg_create_interface_v3(interface_id=0)).sw_if_index
check(api.sw_interface_set_flags(sw_if_index=pg, flags=1))
check(api.sw_interface_add_del_address(sw_if_index=pg, is_add=True, prefix="192.0.2.1/24"))
neighbour = dict(sw_if_index=pg, flags=1, mac_address="02:00:00:00:00:09", ip_address="192.0.2.2")
check(api.ip_neighbor_add_del(is_add=True, neighbor=neighbour))
mac = check(api.sw_interface_get_mac_address(sw_if_index=pg)).mac_address
path = dict(sw_if_index=pg, proto=0, type=0, weight=1, nh=dict(address=dict(ip4="192.0.2.2")), label_stack=[{}] * 16)


def add(prefix):
    route = dict(table_id=0, prefix=prefix, n_paths=1, paths=[path])
    return check(api.ip_route_add_del(is_add=True, route=route)).stats_index


# Two routes to one neighbour: a number each.
prefixes = {"198.51.100.0/25": 30, "198.51.100.128/25": 20}
numbers = {prefix: add(prefix) for prefix in prefixes}
assert len(set(numbers.values())) == 2, numbers
assert numbers == {prefix: add(prefix) for prefix in prefixes}, "the same route, the same number"
for prefix, number in numbers.items():
    assert check(api.ip_route_lookup(table_id=0, exact=1, prefix=prefix)).route.stats_index == number
    assert stats["/net/route/to"][:, number].sum_packets() == 0
dumped = {str(d.route.prefix): d.route.stats_index for d in api.ip_route_v2_dump(table=dict(table_id=0))}
assert numbers.items() <= dumped.items() and len(set(dumped.values())) == len(dumped), dumped

for (prefix, count), to in zip(prefixes.items(), ["198.51.100.1", "198.51.100.129"]):
    check(
        api.cli_inband(
            cmd=f"packet-generator new {{ name to{to} limit {count} size 100-100 interface pg0 data {{ "
            f"IP4: 02:00:00:00:00:01 -> {mac} UDP: 192.0.2.7 -> {to} UDP: 1 -> 2 incrementing 58 }} }}"
        )
    )
    check(api.pg_enable_disable(is_enabled=True, stream_name=f"to{to}"))


def counts(prefix):
    counter = stats["/net/route/to"][:, numbers[prefix]]
    return counter.sum_packets(), counter.sum_octets()


start = time.monotonic()
while any(counts(prefix)[0] < count for prefix, count in prefixes.items()):
    assert time.monotonic() < start + 30, [counts(prefix) for prefix in prefixes]
    time.sleep(0.02)
# Of IP packets, as VPP counts them.
assert [counts(prefix) for prefix in prefixes] == [(30, 30 * 86), (20, 20 * 86)]
shown = check(api.cli_inband(cmd="show ip fib")).reply
assert "to:[30:2580]" in shown and "to:[20:1720]" in shown, shown
assert stats["/if/tx"][:, pg].sum_packets() == 50
client.disconnect()
stats.disconnect()
