#!/usr/bin/env bash
# The demonstration behind `make demo`: two containers and a memif application talk through wharf.
#
#       container a               wharf (in a namespace of its own)              container b
#      eth0 10.0.1.2 --- veth --- AF_XDP 10.0.1.1 | 10.0.2.1 AF_XDP --- veth --- 10.0.2.2 eth0
#                                     memif1/0 10.0.3.1
#                                          | shared memory
#                              icmp_responder 10.0.3.2, a process
#
# Touches no interface of this machine: daemon and containers live in network namespaces, which go away at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}/release
seconds=${DEMO_SECONDS:-5}
name=wharf-demo-$$
wharf_ns=$name-wharf a=$name-a b=$name-b
dir=$(mktemp -d /tmp/$name.XXXXXX)
pids=()

cleanup() {
    status=$?
    trap - EXIT
    for signal in TERM KILL; do
        [ ${#pids[@]} -eq 0 ] || kill -$signal "${pids[@]}" 2>/dev/null || break
        sleep 0.5
    done
    wait || true
    for ns in "$wharf_ns" "$a" "$b"; do
        ip netns delete "$ns" 2>/dev/null || true
    done
    if [ $status -ne 0 ]; then
        echo "the demo failed; wharf's log:" >&2
        tail -n 40 "$dir/wharf.log" >&2 2>/dev/null || true
    fi
    rm -rf "$dir"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
ctl() { printf 'wharf# %s\n' "$*"; "$target/wharfctl" -s "$dir/cli.sock" "$*"; }
in_a() { printf '[a]$ %s\n' "$*"; ip netns exec "$a" "$@"; }

if [ "$(id -u)" != 0 ]; then
    echo "the demo makes network namespaces: run it as root" >&2
    exit 1
fi
for program in wharf wharfctl examples/icmp_responder; do
    if [ ! -x "$target/$program" ]; then
        echo "$target/$program is missing: run it by 'make demo', which builds it" >&2
        exit 1
    fi
done

step "Two containers, each with a veth pair to a namespace that only wharf lives in"
ip netns add "$wharf_ns"
for pod in a b; do
    ns=$name-$pod
    net=$([ $pod = a ] && echo 10.0.1 || echo 10.0.2)
    ip netns add "$ns"
    ip -n "$wharf_ns" link add "veth-$pod" type veth peer name eth0 netns "$ns"
    ip -n "$wharf_ns" link set "veth-$pod" up
    ip -n "$ns" link set lo up
    ip -n "$ns" address add "$net.2/24" dev eth0
    # IPv4 only: no router solicitations between the packets that are shown.
    ip -n "$ns" link set eth0 addrgenmode none
    ip -n "$ns" link set eth0 up
    ip -n "$ns" route add default via "$net.1"
    echo "container $pod: eth0 $net.2/24, default gateway $net.1"
done

step "wharf starts, with one worker"
ip netns exec "$wharf_ns" "$target/wharf" unix "{ nodaemon nosyslog runtime-dir $dir cli-listen $dir/cli.sock }" \
    cpu "{ workers 1 }" </dev/null >"$dir/wharf.log" 2>&1 &
pids+=($!)
wharf_pid=$!
for _ in $(seq 100); do
    "$target/wharfctl" -s "$dir/cli.sock" show version >"$dir/version" 2>/dev/null && break
    kill -0 "$wharf_pid" 2>/dev/null || exit 1
    sleep 0.1
done
ctl show version

step "It takes the veths over by AF_XDP, and offers a memif"
for pod in a b; do
    ctl create interface af_xdp host-if "veth-$pod" name "veth-$pod"
done
ctl create memif socket id 1 filename "$dir/memif.sock"
ctl create interface memif id 0 socket-id 1 master

step "Addresses: wharf is the router between three networks"
n=1
for interface in veth-a veth-b memif1/0; do
    ctl set interface ip address $interface 10.0.$n.1/24
    ctl set interface state $interface up
    n=$((n + 1))
done

step "An application joins by shared memory: it answers ARP and ping for 10.0.3.2"
printf '$ %s\n' "icmp_responder --socket $dir/memif.sock --id 0 --ip 10.0.3.2 --role client"
"$target/examples/icmp_responder" --socket "$dir/memif.sock" --id 0 --ip 10.0.3.2 --role client </dev/null \
    >"$dir/responder.log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do
    "$target/wharfctl" -s "$dir/cli.sock" show memif | grep --quiet 'admin-up connected' && break
    sleep 0.1
done
ctl show memif

step "Container a pings container b, then the memif application"
in_a ping -n -c 3 -i 0.2 10.0.2.2
in_a ping -n -c 3 -i 0.2 10.0.3.2

step "TCP from a to b through wharf, for $seconds seconds"
ip netns exec "$b" iperf3 --server --one-off --bind 10.0.2.2 </dev/null >"$dir/iperf3.log" 2>&1 &
pids+=($!)
for _ in $(seq 50); do
    [ -z "$(ip netns exec "$b" ss -Hltn 'sport = 5201')" ] || break
    sleep 0.1
done
in_a iperf3 --client 10.0.2.2 --time "$seconds" --interval 0

step "What the interfaces counted"
ctl show interface

step "What the nodes cost: clocks a packet, packets a vector"
ctl show runtime

step "The way of one packet: a ping from a to the memif application"
ctl trace add af_xdp-input 1
in_a ping -n -c 1 -q 10.0.3.2
ctl show trace

step "wharf stops and gives everything back"
kill -TERM "$wharf_pid"
for _ in $(seq 50); do
    kill -0 "$wharf_pid" 2>/dev/null || break
    sleep 0.1
done
if kill -0 "$wharf_pid" 2>/dev/null; then
    echo "wharf still runs after SIGTERM" >&2
    exit 1
fi
show ip -n "$wharf_ns" -brief link
