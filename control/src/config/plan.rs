//! From one document to another: what goes, then what comes, each in an order in which it can be done.

use super::check::{memif_ids, part_of};
use super::document::*;
use super::step::{Entry, Mode, Setting, Step};
use super::words::{NeighbourWords, Text};
use crate::span::SpanLayer;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use wharf_nodes::acl::Direction;
use wharf_nodes::wire::Ip4Prefix;

/// The steps from `old` to `new`; none where they say the same. Both have been checked.
///
/// What does not change is not touched. An interface whose type changed is deleted and created, with all that hangs on it.
pub fn plan(old: &Document, new: &Document) -> Vec<Step> {
    let mut plan = Plan { now: old.clone(), new, steps: Vec::new() };
    plan.remove();
    plan.add();
    plan.tidy();
    plan.steps
}

struct Plan<'a> {
    /// What there will be after the steps so far. Deleting one thing takes others along.
    now: Document,
    new: &'a Document,
    steps: Vec<Step>,
}

/// Interfaces of a higher number are parts of those of a lower one.
fn depth(name: &str, kind: &InterfaceType) -> u8 {
    match kind {
        InterfaceType::Sub(_) => 1,
        kind if part_of(name, kind).is_some() => 2,
        _ => 0,
    }
}

impl Plan<'_> {
    fn set(&mut self, name: &str, setting: Setting) {
        self.steps.push(Step::Set(name.to_owned(), setting));
    }

    /// The interfaces that are not in the new document as they are, in an order in which they can be deleted.
    fn unwanted(&self) -> Vec<String> {
        let socket_stays = |name: &str| {
            let socket = memif_ids(name).map(|(socket, _)| Text(socket)).unwrap_or_default();
            self.now.memif_socket.get(&socket) == self.new.memif_socket.get(&socket)
        };
        let stays = |name: &str, config: &InterfaceConfig| {
            let same = self.new.interface.get(name).is_some_and(|new| new.kind == config.kind);
            same && (!matches!(config.kind, InterfaceType::Memif(_)) || socket_stays(name))
        };
        let all = || self.now.interface.iter();
        let gone: BTreeSet<&String> =
            all().filter(|(name, c)| !stays(name, c)).map(|(name, _)| name).collect();
        let parent_goes = |name: &str, config: &InterfaceConfig| {
            part_of(name, &config.kind).is_some_and(|parent| gone.iter().any(|name| *name == parent))
        };
        let mut list: Vec<(&String, &InterfaceConfig)> =
            all().filter(|(name, config)| gone.contains(name) || parent_goes(name, config)).collect();
        list.sort_by_key(|(name, config)| Reverse(depth(name, &config.kind)));
        list.into_iter().map(|(name, _)| name.clone()).collect()
    }

    fn remove(&mut self) {
        let unwanted = self.unwanted();
        let goes: BTreeSet<&str> = unwanted.iter().map(String::as_str).collect();
        let (now, new) = (&mut self.now, self.new);
        // Routes that no one wants any more, also of interfaces that go: each is a line of its own.
        for (table, routes) in &mut now.route {
            let wanted = new.route.get(table);
            routes.retain(|prefix, _| {
                let stays = wanted.is_some_and(|wanted| wanted.contains_key(prefix));
                if !stays {
                    self.steps.push(Step::Route(table.0, prefix.0, Entry::Gone));
                }
                stays
            });
        }
        for (name, entries) in now.neighbor.iter_mut().filter(|(name, _)| !goes.contains(name.as_str())) {
            let wanted = new.neighbor.get(name);
            entries.retain(|address, entry| {
                // Whether there is a host route is settled when a neighbour comes.
                let stays = wanted.and_then(|w| w.get(address)).is_some_and(|w| w.0.in_fib == entry.0.in_fib);
                if !stays {
                    self.steps.push(Step::Neighbour(name.clone(), *address, Entry::Gone));
                }
                stays
            });
        }
        for (domain, entries) in &mut now.l2fib {
            let wanted = new.l2fib.get(domain);
            entries.retain(|mac, name| {
                let stays =
                    wanted.is_some_and(|wanted| wanted.contains_key(mac)) || goes.contains(name.as_str());
                if !stays {
                    self.steps.push(Step::L2Fib(domain.0, mac.0, Entry::Gone));
                }
                stays
            });
        }
        for (domain, entries) in &mut now.arp_entry {
            let wanted = new.arp_entry.get(domain);
            entries.retain(|address, _| {
                let stays = wanted.is_some_and(|wanted| wanted.contains_key(address));
                if !stays {
                    self.steps.push(Step::ArpEntry(domain.0, *address, Entry::Gone));
                }
                stays
            });
        }
        for name in
            now.interface.keys().filter(|name| !goes.contains(name.as_str())).cloned().collect::<Vec<_>>()
        {
            self.loosen(&name, &goes);
        }
        for name in &unwanted {
            self.steps.push(Step::Delete(name.clone()));
            self.delete(name);
        }
        let sockets: Vec<_> = (self.now.memif_socket.iter())
            .filter(|(id, socket)| new.memif_socket.get(*id) != Some(*socket))
            .map(|(id, _)| *id)
            .collect();
        for id in sockets {
            self.steps.push(Step::Socket(id.0, None));
            self.now.memif_socket.remove(&id);
        }
    }

    /// What an interface that stays gives up first.
    fn loosen(&mut self, name: &str, goes: &BTreeSet<&str>) {
        let Some(new) = self.new.interface.get(name) else { return };
        let Some(mut config) = self.now.interface.remove(name) else { return };
        if config.up && !new.up {
            self.set(name, Setting::Up(false));
            config.up = false;
        }
        for layer in SpanLayer::ALL {
            config.spans_mut(layer).retain(|to, _| {
                let stays = new.spans(layer).contains_key(to) || goes.contains(to.as_str());
                if !stays {
                    self.steps.push(Step::Span(name.to_owned(), to.clone(), layer, Entry::Gone));
                }
                stays
            });
        }
        // An interface changes its table without addresses. Their order counts: it speaks as the first.
        let wanted = |address: &Text<_>| config.table == new.table && new.addresses.contains(address);
        let (mut stay, mut go): (Vec<_>, Vec<_>) = config.addresses.iter().copied().partition(wanted);
        if !new.addresses.starts_with(&stay) {
            let same = stay.iter().zip(&new.addresses).take_while(|(a, b)| a == b).count();
            go.extend(stay.split_off(same));
        }
        config.addresses = stay;
        for address in go {
            self.steps.push(Step::Address(name.to_owned(), address.0, false));
            let subnet = Ip4Prefix::clamped(address.0.0, address.0.1);
            let still = config.addresses.iter().any(|Text(a)| Ip4Prefix::clamped(a.0, a.1) == subnet);
            if let Some(neighbours) = self.now.neighbor.get_mut(name).filter(|_| !still) {
                neighbours.retain(|address, _| !subnet.contains(*address));
            }
        }
        // One BVI after the other.
        let bvi_moves = config.bvi().is_some() && config.bvi() != new.bvi();
        let peer_goes = config.xconnect.as_deref().is_some_and(|peer| goes.contains(peer));
        if config.is_l2() && !peer_goes && (!new.is_l2() || bvi_moves) {
            self.set(name, Setting::Mode(Mode::L3));
            self.leave_l2(name, &mut config);
        }
        self.now.interface.insert(name.to_owned(), config);
    }

    fn leave_l2(&mut self, name: &str, config: &mut InterfaceConfig) {
        if let Some(macs) = config.bridge.take().and_then(|b| self.now.l2fib.get_mut(&Text(b.domain))) {
            macs.retain(|_, behind| behind != name);
        }
        config.xconnect = None;
        config.reset_l2();
    }

    /// What the deletion of an interface takes along.
    fn delete(&mut self, name: &str) {
        if let Some(mut config) = self.now.interface.remove(name) {
            self.leave_l2(name, &mut config);
        }
        self.now.neighbor.remove(name);
        for config in self.now.interface.values_mut() {
            SpanLayer::ALL.iter().for_each(|layer| config.spans_mut(*layer).retain(|to, _| to != name));
            if config.xconnect.as_deref() == Some(name) {
                config.xconnect = None;
                config.reset_l2();
            }
        }
        for routes in self.now.route.values_mut() {
            routes.retain(|_, route| route.0.interface() != Some(name));
        }
    }

    fn add(&mut self) {
        let new = self.new;
        if self.now.settings != new.settings {
            self.steps.push(Step::Settings(new.settings.clone()));
        }
        for (Text(id), socket) in &new.memif_socket {
            if !self.now.memif_socket.contains_key(&Text(*id)) {
                self.steps.push(Step::Socket(*id, Some(socket.clone())));
            }
        }
        for table in new.tables.iter().filter(|table| !self.now.tables.contains(table)) {
            self.steps.push(Step::Table(*table, true));
        }
        for (id, domain) in &new.bridge_domain {
            match self.now.bridge_domain.get(id) {
                None => self.steps.push(Step::NewDomain(id.0, domain.clone())),
                Some(old) if old != domain => self.steps.push(Step::Domain(id.0, domain.clone())),
                Some(_) => {}
            }
        }
        for (index, acl) in &new.acl {
            match self.now.acl.get(index) {
                None => self.steps.push(Step::NewAcl(index.0, acl.clone())),
                Some(old) if old != acl => self.steps.push(Step::Acl(index.0, acl.clone())),
                Some(_) => {}
            }
        }
        for (index, acl) in &new.macip_acl {
            match self.now.macip_acl.get(index) {
                None => self.steps.push(Step::NewMacIp(index.0, acl.clone())),
                Some(old) if old != acl => self.steps.push(Step::MacIp(index.0, acl.clone())),
                Some(_) => {}
            }
        }
        let mut missing: Vec<(&String, &InterfaceConfig)> =
            new.interface.iter().filter(|(name, _)| !self.now.interface.contains_key(*name)).collect();
        missing.sort_by_key(|(name, config)| depth(name, &config.kind));
        for (name, config) in missing {
            self.steps.push(Step::Create(name.clone(), config.kind.clone()));
            self.now.interface.insert(name.clone(), InterfaceConfig::new(config.kind.clone()));
        }
        // One kind of setting after the other: a peer is there, and free, when it is needed.
        for part in [Self::basics, Self::mode, Self::addresses, Self::policy, Self::spans, Self::state] {
            for (name, config) in &new.interface {
                if let Some(old) = self.now.interface.get(name).cloned() {
                    part(self, name, &old, config);
                }
            }
        }
        self.entries();
        for (Text(table), routes) in &new.route {
            let old = self.now.route.get(&Text(*table));
            for (prefix, route) in routes {
                let entry = match old.and_then(|old| old.get(prefix)) {
                    None => Entry::New(route.0.clone()),
                    Some(old) if old != route => Entry::Other(route.0.clone()),
                    Some(_) => continue,
                };
                self.steps.push(Step::Route(*table, prefix.0, entry));
            }
        }
    }

    fn basics(&mut self, name: &str, old: &InterfaceConfig, new: &InterfaceConfig) {
        if old.table != new.table {
            self.set(name, Setting::Table(new.table));
        }
        if let Some(mac) = new.mac.filter(|_| old.mac != new.mac) {
            self.set(name, Setting::Mac(mac.0));
        }
        if let Some(mtu) = new.mtu.filter(|_| old.mtu != new.mtu) {
            self.set(name, Setting::Mtu(mtu));
        }
        if old.tag != new.tag {
            self.set(name, Setting::Tag(new.tag.clone()));
        }
        let mode = new.rx_mode.filter(|_| old.rx_mode != new.rx_mode);
        if let Some(mode) = mode {
            self.set(name, Setting::RxMode(mode));
        }
        let queues: BTreeSet<_> = old.rx_queue.keys().chain(new.rx_queue.keys()).collect();
        for queue in queues {
            let [mut old, new] =
                [old, new].map(|config| config.rx_queue.get(queue).copied().unwrap_or_default());
            // What is said of all is then true of each.
            old.mode = old.mode.filter(|_| mode.is_none());
            if old != new {
                self.set(name, Setting::RxQueue(queue.0, new));
            }
        }
    }

    fn mode(&mut self, name: &str, old: &InterfaceConfig, new: &InterfaceConfig) {
        if (old.bridge, &old.xconnect) != (new.bridge, &new.xconnect) {
            let leaves = old.bridge.filter(|old| new.bridge.is_none_or(|new| new.domain != old.domain));
            if let Some(macs) = leaves.and_then(|old| self.now.l2fib.get_mut(&Text(old.domain))) {
                macs.retain(|_, behind| behind != name);
            }
            let mode = match (new.bridge, &new.xconnect) {
                (Some(bridge), _) => Mode::Bridge(bridge),
                (None, Some(peer)) => Mode::Xconnect(peer.clone()),
                (None, None) => Mode::L3,
            };
            self.set(name, Setting::Mode(mode));
        }
        for (old, new, setting) in [
            (old.learn, new.learn, Setting::Learn(new.learn)),
            (old.forward, new.forward, Setting::Forward(new.forward)),
            (old.flood, new.flood, Setting::Flood(new.flood)),
        ] {
            if old != new {
                self.set(name, setting);
            }
        }
        if old.learn_limit != new.learn_limit {
            self.set(name, Setting::LearnLimit(new.learn_limit));
        }
        if old.tag_rewrite != new.tag_rewrite {
            self.set(name, Setting::TagRewrite(new.tag_rewrite.map(|operation| operation.0)));
        }
    }

    fn addresses(&mut self, name: &str, old: &InterfaceConfig, new: &InterfaceConfig) {
        for address in new.addresses.iter().filter(|address| !old.addresses.contains(address)) {
            self.steps.push(Step::Address(name.to_owned(), address.0, true));
        }
    }

    fn policy(&mut self, name: &str, old: &InterfaceConfig, new: &InterfaceConfig) {
        for (direction, old, new) in [
            (Direction::Input, &old.acl_input, &new.acl_input),
            (Direction::Output, &old.acl_output, &new.acl_output),
        ] {
            if old != new {
                self.set(name, Setting::Acls(direction, new.clone()));
            }
        }
        for (direction, old, new) in [
            (Direction::Input, &old.etype_input, &new.etype_input),
            (Direction::Output, &old.etype_output, &new.etype_output),
        ] {
            if old != new {
                self.set(name, Setting::Etypes(direction, new.clone()));
            }
        }
        if old.macip_acl != new.macip_acl {
            self.set(name, Setting::MacIp(new.macip_acl));
        }
        let pairs = |config: &InterfaceConfig| -> BTreeSet<(String, String)> {
            let of = config.feature.iter();
            of.flat_map(|(arc, of)| of.iter().map(|feature| (arc.clone(), feature.clone()))).collect()
        };
        let (old, new) = (pairs(old), pairs(new));
        for (arc, feature) in old.symmetric_difference(&new).cloned() {
            let on = new.contains(&(arc.clone(), feature.clone()));
            self.set(name, Setting::Feature(arc, feature, on));
        }
    }

    fn spans(&mut self, name: &str, old: &InterfaceConfig, new: &InterfaceConfig) {
        for layer in SpanLayer::ALL {
            for (to, span) in new.spans(layer) {
                let entry = match old.spans(layer).get(to) {
                    None => Entry::New(span.0),
                    Some(old) if old != span => Entry::Other(span.0),
                    Some(_) => continue,
                };
                self.steps.push(Step::Span(name.to_owned(), to.clone(), layer, entry));
            }
        }
    }

    fn state(&mut self, name: &str, old: &InterfaceConfig, new: &InterfaceConfig) {
        if old.up != new.up {
            self.set(name, Setting::Up(new.up));
        }
    }

    fn entries(&mut self) {
        let new = self.new;
        for (name, entries) in &new.neighbor {
            let old = self.now.neighbor.get(name);
            for (address, Text(entry)) in entries {
                let entry: Entry<NeighbourWords> = match old.and_then(|old| old.get(address)) {
                    None => Entry::New(*entry),
                    Some(old) if old.0 != *entry => Entry::Other(*entry),
                    Some(_) => continue,
                };
                self.steps.push(Step::Neighbour(name.clone(), *address, entry));
            }
        }
        for (Text(domain), entries) in &new.l2fib {
            let old = self.now.l2fib.get(&Text(*domain));
            for (mac, name) in entries {
                let entry = match old.and_then(|old| old.get(mac)) {
                    None => Entry::New(name.clone()),
                    Some(old) if old != name => Entry::Other(name.clone()),
                    Some(_) => continue,
                };
                self.steps.push(Step::L2Fib(*domain, mac.0, entry));
            }
        }
        for (Text(domain), entries) in &new.arp_entry {
            let old: Option<&BTreeMap<Ipv4Addr, _>> = self.now.arp_entry.get(&Text(*domain));
            for (address, mac) in entries {
                let entry = match old.and_then(|old| old.get(address)) {
                    None => Entry::New(mac.0),
                    Some(old) if old != mac => Entry::Other(mac.0),
                    Some(_) => continue,
                };
                self.steps.push(Step::ArpEntry(*domain, *address, entry));
            }
        }
    }

    /// What goes once nothing uses it any more.
    fn tidy(&mut self) {
        let (now, new) = (&self.now, self.new);
        let gone = |id: &&Text<u32>, there: bool| (!there).then_some(id.0);
        self.steps.extend(
            now.bridge_domain
                .keys()
                .filter_map(|id| gone(&id, new.bridge_domain.contains_key(id)))
                .map(Step::NoDomain),
        );
        self.steps
            .extend(now.acl.keys().filter_map(|id| gone(&id, new.acl.contains_key(id))).map(Step::NoAcl));
        self.steps.extend(
            now.macip_acl
                .keys()
                .filter_map(|id| gone(&id, new.macip_acl.contains_key(id)))
                .map(Step::NoMacIp),
        );
        let tables = now.tables.iter().filter(|table| !new.tables.contains(table));
        self.steps.extend(tables.map(|table| Step::Table(*table, false)));
    }
}
