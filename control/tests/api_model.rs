//! Requests in any order over the API, compared with a simple model by dumps; at the end all is given back.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use wharf_control::api::modules::interface::*;
use wharf_control::api::modules::ip::*;
use wharf_control::api::modules::ip_neighbor::*;
use wharf_control::api::modules::l2::*;
use wharf_control::api::modules::pg::{PgCreateInterface, PgDeleteInterface};
use wharf_control::api::modules::types::*;
use wharf_control::api::modules::vxlan::*;
use wharf_control::api::testing::Loopback;

/// A request. Numbers choose from few, so that requests meet.
#[derive(Clone, Debug)]
enum Op {
    CreateLoopback,
    CreatePg,
    CreateSub { parent: u8, vlan: u16 },
    CreateVxlan { peer: u8, vni: u32 },
    Delete { interface: u8 },
    State { interface: u8, up: bool },
    Mtu { interface: u8, mtu: u32 },
    Address { interface: u8, subnet: u8, host: u8, add: bool },
    Route { table: u32, prefix: u8, interface: u8, nowhere: bool, add: bool },
    Neighbour { interface: u8, subnet: u8, host: u8, mac: u8, add: bool },
    Table { id: u32, add: bool },
    Domain { id: u32, learn: bool, add: bool },
    Bridge { interface: u8, domain: u32, bvi: bool, enable: bool },
    Mac { domain: u32, mac: u8, interface: u8, add: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let (i, add) = (0..8u8, prop::bool::weighted(0.7));
    prop_oneof![
        2 => Just(Op::CreateLoopback),
        2 => Just(Op::CreatePg),
        2 => (i.clone(), 1..4u16).prop_map(|(parent, vlan)| Op::CreateSub { parent, vlan }),
        2 => (0..3u8, 0..3u32).prop_map(|(peer, vni)| Op::CreateVxlan { peer, vni }),
        2 => i.clone().prop_map(|interface| Op::Delete { interface }),
        1 => (i.clone(), any::<bool>()).prop_map(|(interface, up)| Op::State { interface, up }),
        1 => (i.clone(), prop::sample::select(vec![0u32, 68, 1280, 2000, 70_000]))
            .prop_map(|(interface, mtu)| Op::Mtu { interface, mtu }),
        4 => (i.clone(), 0..4u8, 1..4u8, add)
            .prop_map(|(interface, subnet, host, add)| Op::Address { interface, subnet, host, add }),
        4 => (0..3u32, 0..5u8, i.clone(), any::<bool>(), add)
            .prop_map(|(table, prefix, interface, nowhere, add)| Op::Route { table, prefix, interface, nowhere, add }),
        3 => (i.clone(), 0..4u8, 1..5u8, 1..3u8, add)
            .prop_map(|(interface, subnet, host, mac, add)| Op::Neighbour { interface, subnet, host, mac, add }),
        1 => (0..3u32, add).prop_map(|(id, add)| Op::Table { id, add }),
        2 => (0..3u32, any::<bool>(), add).prop_map(|(id, learn, add)| Op::Domain { id, learn, add }),
        4 => (i.clone(), 0..3u32, any::<bool>(), add)
            .prop_map(|(interface, domain, bvi, enable)| Op::Bridge { interface, domain, bvi, enable }),
        3 => (0..3u32, 1..4u8, i, add)
            .prop_map(|(domain, mac, interface, add)| Op::Mac { domain, mac, interface, add }),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Loopback,
    Pg,
    Sub { parent: u32, vlan: u16 },
    Vxlan { peer: u8, vni: u32 },
}

#[derive(Clone, Debug)]
struct Port {
    kind: Kind,
    up: bool,
    /// 0 while it was not set.
    mtu: u32,
    addresses: BTreeSet<(Ipv4Addr, u8)>,
    /// Domain, and whether it is its router interface.
    bridge: Option<(u32, bool)>,
}

/// Where a route leads: nowhere, or to a next hop.
type Via = Option<(Ipv4Addr, u32)>;

/// What there should be.
#[derive(Default)]
struct Model {
    ports: BTreeMap<u32, Port>,
    routes: BTreeMap<(u32, Ipv4Addr), Via>,
    neighbours: BTreeMap<(u32, Ipv4Addr), [u8; 6]>,
    tables: BTreeSet<u32>,
    domains: BTreeMap<u32, bool>,
    macs: BTreeMap<(u32, [u8; 6]), u32>,
    next_pg: u32,
}

fn host(subnet: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, subnet, host)
}

fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, last]
}

fn subnet(address: Ipv4Addr) -> u8 {
    address.octets()[2]
}

impl Model {
    /// The interface that a number stands for, or one that is not there.
    fn pick(&self, number: u8) -> u32 {
        self.ports.keys().nth(number.into()).copied().unwrap_or(4000)
    }

    fn add(&mut self, index: u32, kind: Kind) {
        let up = matches!(kind, Kind::Vxlan { .. });
        let port = Port { kind, up, mtu: 0, addresses: BTreeSet::new(), bridge: None };
        assert!(self.ports.insert(index, port).is_none(), "interface {index} is given twice");
    }

    fn remove(&mut self, index: u32) {
        let children = self
            .ports
            .iter()
            .filter(|(_, port)| matches!(port.kind, Kind::Sub { parent, .. } if parent == index));
        let children: Vec<u32> = children.map(|(child, _)| *child).collect();
        children.into_iter().for_each(|child| self.remove(child));
        self.ports.remove(&index);
        self.neighbours.retain(|(port, _), _| *port != index);
        self.routes.retain(|_, via| via.is_none_or(|(_, port)| port != index));
        self.macs.retain(|_, port| *port != index);
    }

    /// Whether an address would be in the way of another interface's, or is there already.
    fn conflicts(&self, index: u32, address: Ipv4Addr) -> bool {
        self.ports.iter().any(|(other, port)| {
            let near = |a: &Ipv4Addr| *other != index && subnet(*a) == subnet(address);
            port.addresses.iter().any(|(a, _)| *a == address || near(a))
        })
    }

    /// Does a request, and checks that it goes as it should.
    fn apply(&mut self, lab: &mut Loopback, op: &Op) {
        match *op {
            Op::CreateLoopback => {
                let made = lab.call(&CreateLoopback::default()).unwrap();
                self.add(made.sw_if_index.0, Kind::Loopback);
            }
            Op::CreatePg => {
                let request =
                    PgCreateInterface { interface_id: InterfaceIndex(self.next_pg), ..Default::default() };
                self.next_pg += 1;
                self.add(lab.call(&request).unwrap().sw_if_index.0, Kind::Pg);
            }
            Op::CreateSub { parent, vlan } => {
                let parent = self.pick(parent);
                let kind = Kind::Sub { parent, vlan };
                let can = self.ports.get(&parent).is_some_and(|port| port.kind == Kind::Pg);
                let taken = self.ports.values().any(|port| port.kind == kind);
                let request = CreateVlanSubif { sw_if_index: InterfaceIndex(parent), vlan_id: vlan.into() };
                let made = lab.call(&request);
                assert_eq!(made.is_ok(), can && !taken, "{made:?}");
                if let Ok(made) = made {
                    self.add(made.sw_if_index.0, kind);
                }
            }
            Op::CreateVxlan { peer, vni } => {
                let kind = Kind::Vxlan { peer, vni };
                let request = VxlanAddDelTunnelV2 {
                    is_add: true,
                    instance: u32::MAX,
                    src_address: host(100, 1).into(),
                    dst_address: host(100, 2 + peer).into(),
                    decap_next_index: u32::MAX,
                    vni,
                    ..Default::default()
                };
                match lab.call(&request) {
                    Ok(made) => {
                        assert!(self.ports.values().all(|port| port.kind != kind));
                        self.add(made.sw_if_index.0, kind);
                    }
                    Err(retval) => {
                        assert!(
                            retval == -75 && self.ports.values().any(|port| port.kind == kind),
                            "{retval}"
                        );
                    }
                }
            }
            Op::Delete { interface } => {
                let index = self.pick(interface);
                let sw_if_index = InterfaceIndex(index);
                let gone = match self.ports.get(&index).map(|port| port.kind.clone()) {
                    Some(Kind::Loopback) | None => lab.auto(&DeleteLoopback { sw_if_index }),
                    Some(Kind::Pg) => lab.auto(&PgDeleteInterface { sw_if_index }),
                    Some(Kind::Sub { .. }) => lab.auto(&DeleteSubif { sw_if_index }),
                    Some(Kind::Vxlan { peer, vni }) => {
                        let request = VxlanAddDelTunnelV2 {
                            src_address: host(100, 1).into(),
                            dst_address: host(100, 2 + peer).into(),
                            vni,
                            ..Default::default()
                        };
                        lab.call(&request).map(drop)
                    }
                };
                assert_eq!(gone, if self.ports.contains_key(&index) { Ok(()) } else { Err(-2) });
                self.remove(index);
            }
            Op::State { interface, up } => {
                let index = self.pick(interface);
                let request = SwInterfaceSetFlags {
                    sw_if_index: InterfaceIndex(index),
                    flags: IfStatusFlags(up.into()),
                };
                assert_eq!(lab.auto(&request).is_ok(), self.ports.contains_key(&index));
                self.ports.entry(index).and_modify(|port| port.up = up);
            }
            Op::Mtu { interface, mtu } => {
                let index = self.pick(interface);
                let request = SwInterfaceSetMtu { sw_if_index: InterfaceIndex(index), mtu: [mtu, 0, 0, 0] };
                let set = lab.auto(&request).is_ok();
                assert_eq!(set, self.ports.contains_key(&index) && (68..=2048).contains(&mtu));
                if set {
                    self.ports.entry(index).and_modify(|port| port.mtu = mtu);
                }
            }
            Op::Address { interface, subnet: net, host: last, add } => {
                let (index, address) = (self.pick(interface), host(net, last));
                let request = SwInterfaceAddDelAddress {
                    sw_if_index: InterfaceIndex(index),
                    is_add: add,
                    prefix: AddressWithPrefix(Prefix { address: address.into(), len: 24 }),
                    ..Default::default()
                };
                let conflicts = self.conflicts(index, address);
                let done = lab.auto(&request).is_ok();
                let Some(port) = self.ports.get_mut(&index) else { return assert!(!done) };
                if add {
                    let l2 = matches!(port.bridge, Some((_, false)));
                    assert_eq!(done, !conflicts && !l2);
                    if done {
                        port.addresses.insert((address, 24));
                    }
                } else {
                    assert_eq!(done, port.addresses.remove(&(address, 24)));
                    // Neighbours go with the last address of their subnet.
                    if done && port.addresses.iter().all(|(a, _)| subnet(*a) != net) {
                        self.neighbours.retain(|(i, a), _| *i != index || subnet(*a) != net);
                    }
                }
            }
            Op::Route { table, prefix, interface, nowhere, add } => {
                let (index, address) = (self.pick(interface), Ipv4Addr::new(172, 16, prefix, 0));
                let via = (!nowhere).then_some((host(0, 77), index));
                let path = match via {
                    None => FibPath {
                        r#type: FibPathType::FIB_API_PATH_TYPE_DROP,
                        sw_if_index: u32::MAX,
                        ..Default::default()
                    },
                    Some((next_hop, sw_if_index)) => FibPath {
                        sw_if_index,
                        nh: FibPathNh { address: next_hop.into(), ..Default::default() },
                        ..Default::default()
                    },
                };
                let route = IpRoute {
                    table_id: table,
                    prefix: Prefix { address: address.into(), len: 24 },
                    paths: vec![path],
                    ..Default::default()
                };
                let done = lab.call(&IpRouteAddDel { is_add: add, is_multipath: false, route }).is_ok();
                let known = self.tables.contains(&table);
                let reachable = nowhere || self.ports.contains_key(&index);
                assert_eq!(done, known && (reachable || !add));
                match (done, add) {
                    (true, true) => drop(self.routes.insert((table, address), via)),
                    (true, false) => drop(self.routes.remove(&(table, address))),
                    (false, _) => {}
                }
            }
            Op::Neighbour { interface, subnet: net, host: last, mac: station, add } => {
                let (index, address) = (self.pick(interface), host(net, last));
                let neighbor = IpNeighbor {
                    sw_if_index: InterfaceIndex(index),
                    flags: IpNeighborFlags::IP_API_NEIGHBOR_FLAG_STATIC,
                    mac_address: MacAddress(mac(station)),
                    ip_address: address.into(),
                };
                let done = lab.call(&IpNeighborAddDel { is_add: add, neighbor }).is_ok();
                let Some(port) = self.ports.get(&index) else { return assert!(!done) };
                if add {
                    let connected = port.addresses.iter().any(|(a, _)| subnet(*a) == net);
                    let own = port.addresses.iter().any(|(a, _)| *a == address);
                    assert_eq!(done, connected && !own);
                    if done {
                        self.neighbours.insert((index, address), mac(station));
                    }
                } else {
                    assert_eq!(done, self.neighbours.remove(&(index, address)).is_some());
                }
            }
            Op::Table { id, add } => {
                let table = IpTable { table_id: id, ..Default::default() };
                let done = lab.auto(&IpTableAddDel { is_add: add, table }).is_ok();
                if add {
                    assert!(done);
                    self.tables.insert(id);
                } else {
                    let used = self.routes.keys().any(|(table, _)| *table == id);
                    assert_eq!(done, id != 0 && self.tables.contains(&id) && !used);
                    if done {
                        self.tables.remove(&id);
                    }
                }
            }
            Op::Domain { id, learn, add } => {
                let request =
                    BridgeDomainAddDel { bd_id: id, learn, forward: true, is_add: add, ..Default::default() };
                let done = lab.auto(&request);
                let (there, used) = (
                    self.domains.contains_key(&id),
                    self.ports.values().any(|port| port.bridge.is_some_and(|(domain, _)| domain == id)),
                );
                let wanted = match (add, there) {
                    (true, _) if id == 0 => Err(-121),
                    (true, true) => Err(-119),
                    (false, true) if used => Err(-120),
                    (false, false) => Err(-6),
                    _ => Ok(()),
                };
                assert_eq!(done, wanted);
                if done.is_ok() && add {
                    self.domains.insert(id, learn);
                } else if done.is_ok() {
                    self.domains.remove(&id);
                    self.macs.retain(|(domain, _), _| *domain != id);
                }
            }
            Op::Bridge { interface, domain, bvi, enable } => {
                let index = self.pick(interface);
                let request = SwInterfaceSetL2Bridge {
                    rx_sw_if_index: InterfaceIndex(index),
                    bd_id: domain,
                    port_type: match bvi {
                        true => L2PortType::L2_API_PORT_TYPE_BVI,
                        false => L2PortType::L2_API_PORT_TYPE_NORMAL,
                    },
                    enable,
                    ..Default::default()
                };
                let done = lab.auto(&request).is_ok();
                let taken = self
                    .ports
                    .iter()
                    .any(|(other, port)| *other != index && port.bridge == Some((domain, true)));
                let Some(port) = self.ports.get_mut(&index) else { return assert!(!done) };
                let fits = bvi == (port.kind == Kind::Loopback) && (bvi || port.addresses.is_empty());
                assert_eq!(done, !enable || self.domains.contains_key(&domain) && fits && !(bvi && taken));
                if done {
                    let before = port.bridge;
                    port.bridge = enable.then_some((domain, bvi));
                    if before.map(|(domain, _)| domain) != port.bridge.map(|(domain, _)| domain) {
                        self.macs.retain(|_, port| *port != index);
                    }
                }
            }
            Op::Mac { domain, mac: station, interface, add } => {
                let index = self.pick(interface);
                let request = L2fibAddDel {
                    mac: MacAddress(mac(station)),
                    bd_id: domain,
                    sw_if_index: InterfaceIndex(index),
                    is_add: add,
                    static_mac: true,
                    ..Default::default()
                };
                let done = lab.auto(&request).is_ok();
                if add {
                    let bridge = self.ports.get(&index).and_then(|port| port.bridge);
                    assert_eq!(done, bridge.is_some_and(|(of, _)| of == domain));
                    if done {
                        self.macs.insert((domain, mac(station)), index);
                    }
                } else {
                    assert_eq!(done, self.macs.remove(&(domain, mac(station))).is_some());
                }
            }
        }
    }

    /// Compares all dumps with what there should be.
    fn check(&self, lab: &mut Loopback) {
        let all = SwInterfaceDump { sw_if_index: InterfaceIndex::NONE, ..Default::default() };
        let mut seen = BTreeSet::new();
        for found in lab.dump(&all).into_iter().filter(|found| found.sw_if_index.0 != 0) {
            let index = found.sw_if_index.0;
            let port = self.ports.get(&index).unwrap_or_else(|| panic!("{found:?} should not be there"));
            assert_eq!(found.flags.0 & 1 != 0, port.up, "{found:?}");
            assert!(port.mtu == 0 || found.mtu[0] == port.mtu, "{found:?}");
            let addresses = lab.dump(&IpAddressDump { sw_if_index: found.sw_if_index, is_ipv6: false });
            let addresses: BTreeSet<_> = addresses.iter().map(|a| a.prefix.0.ip4().unwrap()).collect();
            assert_eq!(addresses, port.addresses, "interface {index}");
            seen.insert(index);
        }
        assert!(seen.iter().eq(self.ports.keys()), "{seen:?}");

        let tables: BTreeSet<u32> =
            lab.dump(&IpTableDump {}).iter().map(|details| details.table.table_id).collect();
        assert_eq!(tables, self.tables);
        let mut routes = BTreeMap::new();
        for table in tables {
            let table = IpTable { table_id: table, ..Default::default() };
            for IpRouteDetails { route } in lab.dump(&IpRouteDump { table }) {
                let (address, len) = route.prefix.ip4().unwrap();
                let [path] = &route.paths[..] else { panic!("{route:?}") };
                let via = match path.r#type {
                    FibPathType::FIB_API_PATH_TYPE_DROP => None,
                    _ => Some((path.nh.address.ip4(), path.sw_if_index)),
                };
                // Others are the interfaces' and neighbours' own.
                if address.octets()[..2] == [172, 16] {
                    assert_eq!(len, 24);
                    routes.insert((route.table_id, address), via);
                }
            }
        }
        assert_eq!(routes, self.routes);

        let all = IpNeighborDump { sw_if_index: InterfaceIndex::NONE, ..Default::default() };
        let neighbours = lab.dump(&all).into_iter().map(|details| details.neighbor);
        let neighbours: BTreeMap<_, _> =
            neighbours.map(|n| ((n.sw_if_index.0, n.ip_address.ip4().unwrap()), n.mac_address.0)).collect();
        assert_eq!(neighbours, self.neighbours);

        let all = BridgeDomainDump { bd_id: u32::MAX, ..Default::default() };
        let domains = lab.dump(&all);
        let learn: BTreeMap<u32, bool> = domains.iter().map(|domain| (domain.bd_id, domain.learn)).collect();
        assert_eq!(learn, self.domains);
        for domain in domains {
            let members: BTreeSet<u32> = domain.sw_if_details.iter().map(|m| m.sw_if_index.0).collect();
            let is = |port: &Port| port.bridge.is_some_and(|(of, _)| of == domain.bd_id);
            let wanted: BTreeSet<u32> =
                self.ports.iter().filter(|(_, port)| is(port)).map(|(index, _)| *index).collect();
            assert_eq!(members, wanted, "domain {}", domain.bd_id);
            let bvi = self.ports.iter().find(|(_, port)| port.bridge == Some((domain.bd_id, true)));
            assert_eq!(domain.bvi_sw_if_index.0, bvi.map_or(u32::MAX, |(index, _)| *index));
        }
        let macs = lab.dump(&L2FibTableDump { bd_id: u32::MAX }).into_iter();
        let macs: BTreeMap<_, _> = macs
            .filter(|entry| entry.mac.0[..5] == mac(0)[..5])
            .map(|entry| ((entry.bd_id, entry.mac.0), entry.sw_if_index.0))
            .collect();
        assert_eq!(macs, self.macs);

        let tunnels = lab.dump(&VxlanTunnelV2Dump { sw_if_index: InterfaceIndex::NONE });
        let tunnels: BTreeMap<u32, u32> = tunnels.iter().map(|t| (t.sw_if_index.0, t.vni)).collect();
        let wanted = self.ports.iter().filter_map(|(index, port)| match port.kind {
            Kind::Vxlan { vni, .. } => Some((*index, vni)),
            _ => None,
        });
        assert_eq!(tunnels, wanted.collect());
    }
}

#[test]
fn any_requests_in_any_order_do_what_a_simple_model_does_and_all_is_given_back() {
    let mut lab = Loopback::start().unwrap();
    // What is made at first use stays.
    lab.exchange(&[]).unwrap();
    lab.delete_everything().unwrap();
    let before = lab.inventory().unwrap();
    let lab = std::cell::RefCell::new(lab);
    let config = ProptestConfig {
        cases: 256,
        max_shrink_iters: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(ops in prop::collection::vec(op(), 1..80))| {
        let lab = &mut *lab.borrow_mut();
        // A failed case before this one has left something.
        lab.delete_everything().unwrap();
        let mut model = Model { tables: BTreeSet::from([0]), ..Model::default() };
        for op in &ops {
            model.apply(lab, op);
            model.check(lab);
        }
        lab.delete_everything().unwrap();
        prop_assert_eq!(lab.inventory().unwrap(), before.clone());
    });
}
