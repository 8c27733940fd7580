// SPDX-License-Identifier: Apache-2.0
//
// The XDP program of wharf's AF_XDP driver: it decides, frame by frame, whether
// wharf or the kernel gets it. It never drops: in doubt, and when no socket is
// bound to the queue, the kernel keeps the frame.
//
// build.sh compiles it into wharf.bpf.o, which is committed and loaded by
// drivers/src/af_xdp/program.rs; check.sh proves that the two still match.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_QUEUES 64
#define MAX_KEPT 1024
#define MAX_VLAN_TAGS 2
#define MAX_EXTENSIONS 4
#define ND_FIRST 133 /* router solicitation, RFC 4861 section 4 */
#define ND_LAST 137  /* redirect */

// Values of `mode`. Zero is what a fresh array holds, so an unconfigured
// program leaves the interface to the kernel.
enum mode {
	MODE_PASS = 0,   /* the kernel keeps everything */
	MODE_ALL = 1,    /* wharf takes everything */
	MODE_UPLINK = 2, /* ARP, ND and the keep list stay with the kernel */
	MODE_LISTED = 3, /* wharf takes only what is sent to a listed address */
};

// AF_XDP sockets, by receive queue.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} mode SEC(".maps");

// Keep list of MODE_UPLINK. Key: IP protocol << 16 | destination port.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_KEPT);
	__type(key, __u32);
	__type(value, __u8);
} keep_ports SEC(".maps");

// An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d.
struct address {
	__u32 word[4];
};

// Steal list of MODE_LISTED: destination addresses.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_KEPT);
	__type(key, struct address);
	__type(value, __u8);
} steal_addresses SEC(".maps");

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

// Both TCP and UDP start with these (RFC 9293, RFC 768).
struct ports {
	__be16 source;
	__be16 destination;
};

struct extension {
	__u8 next;
	__u8 length; /* in 8 octets, not counting the first 8 (RFC 8200) */
};

static __always_inline int is_kept_port(__u8 protocol, void *l4, void *end)
{
	struct ports *ports = l4;
	__u32 key;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return 0;
	if ((void *)(ports + 1) > end)
		return 1;
	key = (__u32)protocol << 16 | bpf_ntohs(ports->destination);
	return bpf_map_lookup_elem(&keep_ports, &key) != 0;
}

static __always_inline int is_listed(const struct address *destination)
{
	return bpf_map_lookup_elem(&steal_addresses, destination) != 0;
}

// Fragments stay with the kernel in MODE_UPLINK, the first one too: only the
// first has a port, and a datagram must not be torn in two.
static __always_inline int keep_ip4(void *data, void *end, __u32 what)
{
	struct iphdr *ip = data;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return 1;
	if (what == MODE_LISTED) {
		struct address to = { { 0, 0, bpf_htonl(0xffff), ip->daddr } };

		return !is_listed(&to);
	}
	if (ip->frag_off & bpf_htons(0x3fff))
		return 1;
	return is_kept_port(ip->protocol, data + ip->ihl * 4, end);
}

static __always_inline int keep_ip6(void *data, void *end, __u32 what)
{
	struct ipv6hdr *ip = data;
	__u8 protocol;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return 1;
	if (what == MODE_LISTED) {
		struct address to;

		__builtin_memcpy(&to, &ip->daddr, sizeof(to));
		return !is_listed(&to);
	}
	protocol = ip->nexthdr;
	data = ip + 1;
#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct extension *extension = data;

		if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING &&
		    protocol != IPPROTO_DSTOPTS)
			break;
		if ((void *)(extension + 1) > end)
			return 1;
		protocol = extension->next;
		data += ((__u32)extension->length + 1) * 8;
	}
	if (protocol == IPPROTO_ICMPV6) {
		__u8 *type = data;

		return (void *)(type + 1) > end || (*type >= ND_FIRST && *type <= ND_LAST);
	}
	if (protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_HOPOPTS ||
	    protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS)
		return 1;
	return is_kept_port(protocol, data, end);
}

// Whether the kernel keeps the frame, in MODE_UPLINK and MODE_LISTED.
static __always_inline int keep(void *data, void *end, __u32 what)
{
	struct ethhdr *ethernet = data;
	__be16 type;

	if ((void *)(ethernet + 1) > end)
		return 1;
	type = ethernet->h_proto;
	data = ethernet + 1;
#pragma unroll
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		struct vlan_tag *tag = data;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return 1;
		type = tag->ethertype;
		data = tag + 1;
	}
	if (type == bpf_htons(ETH_P_IP))
		return keep_ip4(data, end, what);
	if (type == bpf_htons(ETH_P_IPV6))
		return keep_ip6(data, end, what);
	return what == MODE_LISTED || type == bpf_htons(ETH_P_ARP);
}

static __always_inline int decide(struct xdp_md *context)
{
	void *data = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	__u32 zero = 0;
	__u32 *what = bpf_map_lookup_elem(&mode, &zero);

	if (!what || *what == MODE_PASS)
		return XDP_PASS;
	if (*what != MODE_ALL && keep(data, end, *what))
		return XDP_PASS;
	return bpf_redirect_map(&xsks, context->rx_queue_index, XDP_PASS);
}

SEC("xdp")
int wharf_xdp(struct xdp_md *context)
{
	return decide(context);
}

// The same for interfaces whose frames may span several buffers; `data_end` is
// then the end of the first, which holds every header looked at here.
SEC("xdp.frags")
int wharf_xdp_frags(struct xdp_md *context)
{
	return decide(context);
}

// None of the helpers used is reserved for GPL programs.
char _license[] SEC("license") = "Apache-2.0";
