"""Unmodified vpp_papi drives access lists: each message of VPP's plugin `acl`, and what VPP refuses.

    acl.py API_SOCKET
"""

import sys
from ipaddress import ip_network

from vpp_papi import VPPApiClient

client = VPPApiClient(server_address=sys.argv[1], bootstrapapi=True)
client.connect("acl.py")
api = client.api
ALL = 0xFFFFFFFF
DENY, PERMIT, REFLECT = range(3)
TCP, ICMP6 = 6, 58


def check(reply, retval=0):
    assert getattr(reply, "retval", 0) == retval, reply
    return reply


def rule(action, src="0.0.0.0/0", dst=None, proto=0, sport=(0, 65535), dport=(0, 65535), flags=(0, 0)):
    if dst is None:
        dst = "::/0" if ":" in src else "0.0.0.0/0"
    return dict(
        is_permit=action,
        src_prefix=src,
        dst_prefix=dst,
        proto=proto,
        srcport_or_icmptype_first=sport[0],
        srcport_or_icmptype_last=sport[1],
        dstport_or_icmpcode_first=dport[0],
        dstport_or_icmpcode_last=dport[1],
        tcp_flags_value=flags[0],
        tcp_flags_mask=flags[1],
    )


def add(rules, index=ALL, tag="", retval=0):
    reply = api.acl_add_replace(acl_index=index, tag=tag, count=len(rules), r=rules)
    return check(reply, retval).acl_index


def macip_rule(permit, mac="00:00:00:00:00:00", mask="00:00:00:00:00:00", src="0.0.0.0/0"):
    return dict(is_permit=permit, src_mac=mac, src_mac_mask=mask, src_prefix=src)


def seen(details, asked):
    """Whether a rule came back as it went."""
    return all(
        ip_network(str(getattr(details, name))) == ip_network(value)
        if name.endswith("prefix")
        else str(getattr(details, name)) == str(value)
        if name.startswith("src_mac")
        else getattr(details, name) == value
        for name, value in asked.items()
    )


# The plugin.
version = api.acl_plugin_get_version()
assert (version.major, version.minor) == (1, 4), version
assert check(api.acl_plugin_control_ping()).vpe_pid > 0
assert api.acl_plugin_get_conn_table_max_entries().conn_table_max_entries >= 1024
check(api.acl_stats_intf_counters_enable(enable=True))
check(api.acl_stats_intf_counters_enable(enable=False), -9)
# acl_plugin_use_hash_lookup_get has a reply so short that vpp_papi takes it for an event: api.rs asks.
check(api.acl_plugin_use_hash_lookup_set(enable=False))
check(api.acl_plugin_use_hash_lookup_set(enable=True), -9)

# Lists.
rules = [
    rule(REFLECT, "10.0.0.0/8", "192.0.2.1/32", TCP, (1024, 65535), (80, 80), (2, 18)),
    rule(PERMIT, "2001:db8::/32", proto=ICMP6, sport=(128, 129), dport=(0, 255)),
    rule(DENY),
]
first = add(rules, tag="the first")
second = add([rule(PERMIT)])
assert (first, second) == (0, 1)
lists = api.acl_dump(acl_index=ALL)
assert [(a.acl_index, a.tag, a.count) for a in lists] == [(0, "the first", 3), (1, "", 1)], lists
assert all(map(seen, lists[0].r, rules)), lists
assert add(rules[:1], first, "anew") == first
[only] = api.acl_dump(acl_index=first)
assert (only.tag, len(only.r)) == ("anew", 1)
assert api.acl_dump(acl_index=77) == []
assert add([rule(DENY)], 77, retval=-6) == 77
add([rule(DENY, "10.0.0.0/8", "::/0")], retval=-57)
add([rule(DENY, sport=(2, 1))], retval=-8)
add([rule(DENY, dport=(2, 1))], retval=-8)
add([rule(7)], retval=-7)
wrong = rule(DENY)
wrong["dst_prefix"] = dict(address=dict(af=0, un=dict(ip4="10.0.0.0")), len=33)
add([wrong], retval=-58)
empty = add([], tag="lets nothing pass")
many = [rule(PERMIT, f"10.{i >> 8}.{i & 255}.0/24") for i in range(5000)]
large = add(many)
[back] = api.acl_dump(acl_index=large)
assert all(map(seen, back.r, many)) and back.count == len(many)
check(api.acl_del(acl_index=large))
check(api.acl_del(acl_index=large), -6)

# Interfaces.
pg = check(api.pg_create_interface_v3(interface_id=0)).sw_if_index


def interface_lists():
    [details] = api.acl_interface_list_dump(sw_if_index=pg)
    return details.acls[: details.n_input], details.acls[details.n_input :]


def apply(is_add, is_input, acl, retval=0):
    reply = api.acl_interface_add_del(is_add=is_add, is_input=is_input, sw_if_index=pg, acl_index=acl)
    check(reply, retval)


def set_lists(inputs, outputs, retval=0):
    acls = inputs + outputs
    reply = api.acl_interface_set_acl_list(sw_if_index=pg, count=len(acls), n_input=len(inputs), acls=acls)
    check(reply, retval)


assert interface_lists() == ([], [])
apply(True, True, first)
apply(True, True, second)
apply(True, False, second)
apply(True, True, first, -142)
apply(True, False, second, -143)
apply(True, True, 77, -6)
apply(False, False, first, -6)
assert interface_lists() == ([first, second], [second])
check(api.acl_del(acl_index=first), -142)
apply(False, True, second)
check(api.acl_del(acl_index=second), -143)
check(api.acl_interface_add_del(is_add=True, is_input=True, sw_if_index=99, acl_index=first), -2)
set_lists([second, first], [empty])
assert interface_lists() == ([second, first], [empty])
set_lists([77], [], -6)
set_lists([first, first], [], -116)
set_lists([], [first, first], -116)
assert interface_lists() == ([second, first], [empty]), "as before"
check(api.acl_interface_set_acl_list(sw_if_index=99, count=0, n_input=0, acls=[]), -2)
assert {d.sw_if_index for d in api.acl_interface_list_dump()} == {i.sw_if_index for i in api.sw_interface_dump()}
assert api.acl_interface_list_dump(sw_if_index=99) == []
set_lists([], [])
assert interface_lists() == ([], [])


# EtherTypes.
def set_types(inputs, outputs):
    types = inputs + outputs
    check(
        api.acl_interface_set_etype_whitelist(
            sw_if_index=pg, count=len(types), n_input=len(inputs), whitelist=types
        )
    )


set_types([0x0806, 0x88CC], [0x0806])
[types] = api.acl_interface_etype_whitelist_dump(sw_if_index=ALL)
assert (types.sw_if_index, types.n_input, types.whitelist) == (pg, 2, [0x0806, 0x88CC, 0x0806])
set_types([], [])
assert api.acl_interface_etype_whitelist_dump(sw_if_index=pg) == []
check(api.acl_interface_set_etype_whitelist(sw_if_index=99, count=0, n_input=0, whitelist=[]), -2)

# MAC-IP lists.
station = "02:00:00:00:00:01"
stations = [macip_rule(1, station, "ff:ff:ff:ff:ff:ff", "10.0.0.1/32"), macip_rule(0, src="::/0")]
macip = check(api.macip_acl_add(tag="stations", count=2, r=stations)).acl_index
other = check(api.macip_acl_add_replace(count=1, r=stations[:1])).acl_index
assert (macip, other) == (0, 1)
lists = api.macip_acl_dump()
assert [(a.acl_index, a.tag, a.count) for a in lists] == [(macip, "stations", 2), (other, "", 1)], lists
assert all(map(seen, lists[0].r, stations)), lists
assert check(api.macip_acl_add_replace(acl_index=macip, tag="one", count=1, r=stations[:1])).acl_index == macip
assert [a.count for a in api.macip_acl_dump(acl_index=macip)] == [1]
check(api.macip_acl_add_replace(acl_index=77, count=1, r=stations[:1]), -6)
check(api.macip_acl_interface_add_del(is_add=True, sw_if_index=pg, acl_index=77), -6)
check(api.macip_acl_interface_add_del(is_add=True, sw_if_index=99, acl_index=macip), -2)
check(api.macip_acl_interface_add_del(is_add=False, sw_if_index=pg, acl_index=macip), -6)
check(api.macip_acl_interface_add_del(is_add=True, sw_if_index=pg, acl_index=macip))
assert api.macip_acl_interface_get().acls == [ALL] * pg + [macip]
[applied] = api.macip_acl_interface_list_dump(sw_if_index=ALL)
assert (applied.sw_if_index, applied.acls) == (pg, [macip])
check(api.macip_acl_interface_add_del(is_add=True, sw_if_index=pg, acl_index=other))
assert [a.acls for a in api.macip_acl_interface_list_dump(sw_if_index=pg)] == [[other]]
check(api.macip_acl_del(acl_index=other))
assert api.macip_acl_interface_list_dump(sw_if_index=ALL) == [], "a deleted list is taken away"
check(api.macip_acl_interface_add_del(is_add=True, sw_if_index=pg, acl_index=macip))
check(api.macip_acl_interface_add_del(is_add=False, sw_if_index=pg, acl_index=macip))
check(api.macip_acl_del(acl_index=macip))
check(api.macip_acl_del(acl_index=macip), -6)

# What an interface has goes with it.
set_lists([first], [second])
check(api.pg_delete_interface(sw_if_index=pg))
for acl in (first, second, empty):
    check(api.acl_del(acl_index=acl))
assert api.acl_dump(acl_index=ALL) == [] and api.macip_acl_dump() == []

# sFlow is not there.
assert api.sflow_sampling_rate_get().sampling_N == 10000
assert api.sflow_polling_interval_get().polling_S == 20
assert api.sflow_header_bytes_get().header_B == 128
assert api.sflow_direction_get().sampling_D == 1
assert not api.sflow_drop_monitoring_get().drop_M
check(api.sflow_sampling_rate_set(sampling_N=1000), -9)
check(api.sflow_enable_disable(enable_disable=True, hw_if_index=0), -9)
assert api.sflow_interface_dump() == []
client.disconnect()
