"""Unmodified vpp_papi against wharf: each feature's objects are made, looked at, refused where VPP refuses, and given back.

    core.py API_SOCKET STATS_SOCKET [JSON_DIRECTORY]

With a directory, the definitions are loaded from there, else from the socket.
"""

import sys
import time

from vpp_papi import VPPApiClient
from vpp_papi.vpp_stats import VPPStats

socket, stats_socket = sys.argv[1:3]
if len(sys.argv) > 3:
    client = VPPApiClient(server_address=socket, apidir=sys.argv[3])
else:
    client = VPPApiClient(server_address=socket, bootstrapapi=True)
client.connect("core.py")
api = client.api
ALL = 0xFFFFFFFF


def check(reply, retval=0):
    assert reply.retval == retval, reply
    return reply


def names():
    return {i.interface_name: i for i in api.sw_interface_dump()}


before = sorted(names())

# The daemon.
ping = check(api.control_ping())
assert ping.vpe_pid > 0
assert check(api.show_version()).program == "vpe"
assert len(check(api.show_threads()).thread_data) >= 2
assert any(m.name == "memif.api" for m in check(api.api_versions()).api_versions)
first = check(api.get_first_msg_id(name="memif_e8b0b10f")).first_msg_id
table = client.transport.message_table
assert min(i for name, i in table.items() if name.startswith("memif_")) == first
check(api.get_first_msg_id(name="nothing_12345678"), -7)
assert "wharf" in check(api.cli_inband(cmd="show version")).reply
check(api.cli_inband(cmd="show nothing"), -1)
for routine in "log bihash hardware error run int memory plugins clock".split() + ["trace max 10", "packet-generator"]:
    check(api.cli_inband(cmd="show " + routine))
for routine in ["trace", "interfaces", "runtime", "errors"]:
    check(api.cli_inband(cmd="clear " + routine))
lookup = check(api.get_node_index(node_name="ip4-lookup")).node_index
assert lookup > 0
check(api.get_node_index(node_name="no-such-node"), -63)
check(api.add_node_next(node_name="ip4-input", next_name="ip4-lookup"))
check(api.add_node_next(node_name="ip4-input", next_name="nothing"), -64)

# Interfaces.
loop = check(api.create_loopback(mac_address="02:00:00:00:00:07")).sw_if_index
check(api.create_loopback_instance(is_specified=True, user_instance=7))
check(api.create_loopback_instance(is_specified=True, user_instance=7), -31)
assert str(names()["loop0"].l2_address) == "02:00:00:00:00:07"
assert [i.interface_name for i in api.sw_interface_dump(name_filter_valid=True, name_filter="loop7")] == ["loop7"]
check(api.sw_interface_set_flags(sw_if_index=loop, flags=1))
assert names()["loop0"].flags == 3
check(api.sw_interface_set_flags(sw_if_index=99, flags=1), -2)
check(api.sw_interface_set_mtu(sw_if_index=loop, mtu=[1400, 0, 0, 0]))
check(api.sw_interface_set_mtu(sw_if_index=loop, mtu=[1, 0, 0, 0]), -7)
check(api.sw_interface_tag_add_del(is_add=True, sw_if_index=loop, tag="a tag"))
check(api.sw_interface_set_mac_address(sw_if_index=loop, mac_address="02:00:00:00:00:08"))
assert str(check(api.sw_interface_get_mac_address(sw_if_index=loop)).mac_address) == "02:00:00:00:00:08"
details = names()["loop0"]
assert (details.mtu[0], details.tag) == (1400, "a tag"), details
check(api.ip_table_add_del_v2(table=dict(table_id=5), is_add=True))
check(api.sw_interface_set_table(sw_if_index=loop, vrf_id=9), -3)
check(api.sw_interface_set_table(sw_if_index=loop, vrf_id=5))
assert check(api.sw_interface_get_table(sw_if_index=loop)).vrf_id == 5
check(api.sw_interface_set_table(sw_if_index=loop, vrf_id=0))
check(api.ip_table_add_del(table=dict(table_id=5), is_add=False))
check(api.ip_table_add_del(table=dict(table_id=5), is_add=False), -3)
check(api.ip_table_add_del(table=dict(table_id=6, is_ip6=True), is_add=True), -9)

# Addresses, neighbours, routes.
check(api.sw_interface_add_del_address(sw_if_index=loop, is_add=True, prefix="10.0.0.1/24"))
check(api.sw_interface_add_del_address(sw_if_index=loop, is_add=True, prefix="10.0.0.1/24"), -127)
check(api.sw_interface_add_del_address(sw_if_index=loop, is_add=True, prefix="2001:db8::1/64"), -9)
check(api.sw_interface_add_del_address(sw_if_index=loop, is_add=False, prefix="10.9.0.1/24"), -60)
assert [str(a.prefix) for a in api.ip_address_dump(sw_if_index=loop, is_ipv6=False)] == ["10.0.0.1/24"]
neighbour = dict(sw_if_index=loop, flags=1, mac_address="02:00:00:00:00:09", ip_address="10.0.0.2")
check(api.ip_neighbor_add_del(is_add=True, neighbor=neighbour))
assert [str(n.neighbor.ip_address) for n in api.ip_neighbor_dump(sw_if_index=loop)] == ["10.0.0.2"]


def path(next_hop=None, sw_if_index=ALL, kind=0):
    nh = dict(address=dict(ip4=next_hop)) if next_hop else {}
    return dict(sw_if_index=sw_if_index, type=kind, weight=1, nh=nh, label_stack=[{}] * 16)


def route(prefix, paths, is_add=True, **more):
    return api.ip_route_add_del(
        is_add=is_add, route=dict(prefix=prefix, n_paths=len(paths), paths=paths), **more
    )


check(route("192.0.2.0/24", [path("10.0.0.2")]))
check(route("198.51.100.0/24", [path(kind=2)]))
check(route("203.0.113.0/24", []), -52)
check(route("203.0.113.0/24", [path("10.0.0.2"), path("10.0.0.3")]), -9)
table = {str(r.route.prefix): r.route for r in api.ip_route_dump(table=dict(table_id=0))}
assert str(table["192.0.2.0/24"].paths[0].nh.address.ip4) == "10.0.0.2", table
assert table["198.51.100.0/24"].paths[0].type == 2
assert {str(r.route.prefix) for r in api.ip_route_v2_dump(table=dict(table_id=0))} == set(table)
found = check(api.ip_route_lookup(table_id=0, prefix="192.0.2.77/32"))
assert str(found.route.prefix) == "192.0.2.0/24"
check(api.ip_route_lookup(table_id=0, exact=1, prefix="192.0.2.77/32"), -6)
check(route("192.0.2.0/24", [], is_add=False))
check(route("192.0.2.0/24", [], is_add=False))
check(api.ip_table_flush(table=dict(table_id=0)))
check(api.ip_neighbor_add_del(is_add=False, neighbor=neighbour))
check(api.ip_neighbor_add_del(is_add=False, neighbor=neighbour), -6)
check(api.sw_interface_add_del_address(sw_if_index=loop, is_add=False, del_all=True))

# memif.
socket_id = check(api.memif_socket_filename_add_del_v2(is_add=True, socket_filename="test.sock")).socket_id
check(api.memif_socket_filename_add_del(is_add=True, socket_id=0, socket_filename="x"), -73)
memif = check(api.memif_create_v2(role=0, id=3, socket_id=socket_id, ring_size=512, secret="x")).sw_if_index
check(api.memif_create(role=0, id=3, socket_id=socket_id), -68)
ip_memif = check(api.memif_create(role=0, mode=1, id=4, socket_id=socket_id)).sw_if_index
check(api.memif_create(role=0, mode=2, id=5, socket_id=socket_id), -9)
check(api.memif_delete(sw_if_index=ip_memif))
assert [(m.if_name, m.id, m.ring_size) for m in api.memif_dump()] == [(f"memif{socket_id}/3", 3, 512)]
assert any(s.socket_filename.endswith("/test.sock") for s in api.memif_socket_filename_dump())
check(api.memif_socket_filename_add_del(is_add=False, socket_id=socket_id), -74)

# Layer 2: cross-connect, bridge, VLANs.
pg0 = check(api.pg_create_interface_v3(interface_id=0)).sw_if_index
pg1 = check(api.pg_create_interface(interface_id=1)).sw_if_index
assert check(api.pg_create_interface_v2(interface_id=1)).sw_if_index == pg1, "found again"
check(api.sw_interface_set_l2_xconnect(rx_sw_if_index=pg0, tx_sw_if_index=memif))
assert [(x.rx_sw_if_index, x.tx_sw_if_index) for x in api.l2_xconnect_dump()] == [(pg0, memif)]
check(api.sw_interface_set_l2_xconnect(rx_sw_if_index=pg0, tx_sw_if_index=77), -10)
check(api.sw_interface_set_l2_xconnect(rx_sw_if_index=pg0, tx_sw_if_index=memif, enable=False))
check(api.sw_interface_span_enable_disable(sw_if_index_from=pg0, sw_if_index_to=pg1, state=3))
assert [(s.sw_if_index_from, s.sw_if_index_to, s.state) for s in api.sw_interface_span_dump()] == [(pg0, pg1, 3)]
check(api.sw_interface_span_enable_disable(sw_if_index_from=pg0, sw_if_index_to=pg1, state=0))
assert api.sw_interface_span_dump() == []
check(api.sw_interface_span_enable_disable(sw_if_index_from=pg0, sw_if_index_to=pg1, state=2, is_l2=True))
assert [(s.sw_if_index_to, s.state, s.is_l2) for s in api.sw_interface_span_dump(is_l2=True)] == [(pg1, 2, True)]
assert api.sw_interface_span_dump() == []
check(api.sw_interface_span_enable_disable(sw_if_index_from=pg0, sw_if_index_to=0xffffffff, state=0, is_l2=True))
assert api.sw_interface_span_dump(is_l2=True) == []
vlan = check(api.create_vlan_subif(sw_if_index=pg1, vlan_id=100)).sw_if_index
check(api.create_vlan_subif(sw_if_index=pg1, vlan_id=100), -56)
check(api.create_vlan_subif(sw_if_index=pg1, vlan_id=5000), -55)
assert (names()["pg1.100"].sub_outer_vlan_id, names()["pg1.100"].sup_sw_if_index) == (100, pg1)
domain = dict(flood=True, uu_flood=True, forward=True, learn=True)
check(api.bridge_domain_add_del(bd_id=10, bd_tag="ten", **domain))
check(api.bridge_domain_add_del(bd_id=10, **domain), -119)
chosen = check(api.bridge_domain_add_del_v2(bd_id=ALL, **domain)).bd_id
check(api.bridge_domain_add_del(bd_id=chosen, is_add=False))
check(api.sw_interface_set_l2_bridge(rx_sw_if_index=pg0, bd_id=10))
check(api.sw_interface_set_l2_bridge(rx_sw_if_index=vlan, bd_id=10, shg=1))
check(api.sw_interface_set_l2_bridge(rx_sw_if_index=loop, bd_id=10, port_type=1))
check(api.sw_interface_set_l2_bridge(rx_sw_if_index=pg0, bd_id=11), -6)
check(api.l2_interface_vlan_tag_rewrite(sw_if_index=vlan, vtr_op=3, push_dot1q=1))
assert names()["pg1.100"].vtr_op == 3
check(api.l2fib_add_del(mac="02:00:00:00:00:55", bd_id=10, sw_if_index=pg0, static_mac=True))
macs = {str(m.mac): m.sw_if_index for m in api.l2_fib_table_dump(bd_id=10)}
assert macs["02:00:00:00:00:55"] == pg0, macs
[bridge] = api.bridge_domain_dump()
assert (bridge.bd_id, bridge.bd_tag, bridge.bvi_sw_if_index, bridge.n_sw_ifs) == (10, "ten", loop, 3), bridge
check(api.bridge_domain_add_del(bd_id=10, is_add=False), -120)
for port in (pg0, vlan, loop):
    check(api.sw_interface_set_l2_bridge(rx_sw_if_index=port, bd_id=10, enable=False))
check(api.bridge_domain_add_del(bd_id=10, is_add=False))
check(api.delete_subif(sw_if_index=pg1), -2)
check(api.delete_subif(sw_if_index=vlan))

# VXLAN.
tunnel = dict(src_address="10.1.0.1", dst_address="10.1.0.2", vni=42, decap_next_index=ALL)
vxlan = check(api.vxlan_add_del_tunnel_v3(is_add=True, **tunnel)).sw_if_index
check(api.vxlan_add_del_tunnel_v3(is_add=True, **tunnel), -75)
[seen] = api.vxlan_tunnel_v2_dump(sw_if_index=ALL)
assert (seen.sw_if_index, seen.vni, str(seen.dst_address), seen.dst_port) == (vxlan, 42, "10.1.0.2", 4789)
check(api.vxlan_add_del_tunnel_v3(is_add=False, **tunnel))
check(api.vxlan_add_del_tunnel_v3(is_add=False, **tunnel), -6)

# What is not there says so.
check(api.tap_create_v3(id=1), -9)
check(api.sw_interface_ip6_enable_disable(sw_if_index=loop, enable=True), -9)
assert api.sw_interface_tap_v2_dump() == []

# The stats segment.
stats = VPPStats(socketname=stats_socket)
stats.connect()
assert stats["/if/names"][pg0] == "pg0"
check(api.sw_interface_set_flags(sw_if_index=pg0, flags=1))
rx = stats["/if/rx"][:, pg0].sum_packets()
check(
    api.cli_inband(
        cmd="packet-generator new { name x limit 100 size 64-64 interface pg0 data { IP4: 02:00:00:00:00:01 -> "
        "02:00:00:00:00:02 UDP: 10.0.0.1 -> 10.0.0.2 UDP: 1 -> 2 incrementing 22 } }"
    )
)
check(api.pg_enable_disable(is_enabled=True, stream_name="x"))
check(api.pg_enable_disable(is_enabled=True, stream_name="y"), -6)
for _ in range(1000):
    if stats["/if/drops"][:, pg0].sum() >= 100:
        break
    time.sleep(0.01)
assert stats["/if/rx"][:, pg0].sum_packets() == rx + 100
assert stats["/if/rx"][:, pg0].sum_octets() % 6400 == 0
assert sum(stats["/sys/node/vectors"][:, stats["/sys/node/names"].index("pg-input")]) >= 100
assert stats["/err/ethernet-input/l3 mac mismatch"].sum() >= 100
assert stats["/if/drops"][:, pg0].sum() >= 100
assert stats["/buffer-pools/default-numa-0/available"] > 0
assert stats["/sys/heartbeat"] > 0

check(api.pcap_trace_off(), -7)
check(api.pcap_trace_on(capture_rx=True, filename="../x"), -7)

# All is given back.
check(api.memif_delete(sw_if_index=memif))
check(api.memif_delete(sw_if_index=memif), -2)
check(api.memif_socket_filename_add_del(is_add=False, socket_id=socket_id))
for pg in (pg0, pg1):
    check(api.pg_delete_interface(sw_if_index=pg))
check(api.delete_loopback(sw_if_index=loop))
check(api.delete_loopback(sw_if_index=names()["loop7"].sw_if_index))
assert sorted(names()) == before
assert "/interfaces/pg0/rx" not in [name for name in (stats.refresh(), stats.directory)[1]]
stats.disconnect()
client.disconnect()
