//! Access lists, as the operator set them: what lists there are, where they are applied, and what the workers see of that.

mod compile;
mod counters;
mod explain;
mod macip;
mod session;

pub(crate) use compile::{ROUNDS, Ready, Rules, compiled};
pub use explain::{Explanation, Outcome};
pub use macip::MacIpConfig;
pub use session::{SessionRow, SessionTimeout};

use crate::config::Object;
use crate::dataplane::{Dataplane, OpError};
use crate::interface::Interface;
use counters::Counters;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::classifier::MAX_RULES;
use wharf_nodes::acl::sessions::{EPOCHS, SessionTable, Timeouts};
use wharf_nodes::acl::{
    AclTables, Action, Direction, InterfaceAcl, ListedRule, Lists, MacIpList, Rule, Side, Tuple,
};

/// Bytes that all compiled lists may take together.
const MAX_BYTES: usize = 256 << 20;
/// Characters of a tag, as in VPP's API.
pub const MAX_TAG: usize = 63;
/// Denied packets that are remembered.
const MAX_DENIED: usize = 64;

/// A list.
#[derive(Clone, Debug)]
pub struct AclConfig {
    /// Free text.
    pub tag: String,
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// The first rule's counter; the others follow.
    counter: u32,
}

impl AclConfig {
    /// The rules' counters.
    pub(crate) fn counters(&self) -> std::ops::Range<u32> {
        self.counter..self.counter + self.rules.len() as u32
    }
}

/// What is applied to an interface.
#[derive(Clone, Debug, Default)]
pub struct AclBinding {
    /// Lists for received packets, in order.
    pub input: Vec<u32>,
    /// Lists for packets to be sent, in order.
    pub output: Vec<u32>,
    /// EtherTypes that pass besides IP, of received frames and of frames to be sent.
    pub etypes: [Option<Vec<u16>>; 2],
    /// The MAC-IP list.
    pub macip: Option<u32>,
    compiled: [Option<Arc<Lists>>; 2],
    epochs: [u32; 2],
}

impl AclBinding {
    /// The lists of one direction.
    pub fn lists(&self, direction: Direction) -> &[u32] {
        match direction {
            Direction::Input => &self.input,
            Direction::Output => &self.output,
        }
    }

    fn lists_mut(&mut self, direction: Direction) -> &mut Vec<u32> {
        match direction {
            Direction::Input => &mut self.input,
            Direction::Output => &mut self.output,
        }
    }

    /// Whether a rule opens sessions.
    pub fn reflects(&self) -> bool {
        self.compiled.iter().flatten().any(|lists| lists.reflects())
    }

    /// The compiled lists of one direction.
    pub fn compiled(&self, direction: Direction) -> Option<&Arc<Lists>> {
        self.compiled[direction as usize].as_ref()
    }

    fn is_empty(&self) -> bool {
        self.input.is_empty()
            && self.output.is_empty()
            && self.etypes.iter().all(Option::is_none)
            && self.macip.is_none()
    }

    /// The features that it needs, as arc and node.
    fn features(&self) -> Vec<(&'static str, &'static str)> {
        let mut features = Vec::new();
        // Sessions are seen in both directions, so that the state of a connection is known.
        if !self.input.is_empty() || self.reflects() {
            features.extend([
                ("ip4-unicast", "acl-plugin-in-ip4-fa"),
                ("l2-input-ip4", "acl-plugin-in-ip4-l2"),
                ("l2-input-ip6", "acl-plugin-in-ip6-l2"),
            ]);
        }
        if !self.output.is_empty() || self.reflects() {
            features.extend([
                ("ip4-output", "acl-plugin-out-ip4-fa"),
                ("l2-output-ip4", "acl-plugin-out-ip4-l2"),
                ("l2-output-ip6", "acl-plugin-out-ip6-l2"),
            ]);
        }
        let [input, output] = &self.etypes;
        features.extend(input.as_ref().map(|_| ("l2-input-nonip", "acl-plugin-in-nonip-l2")));
        features.extend(output.as_ref().map(|_| ("l2-output-nonip", "acl-plugin-out-nonip-l2")));
        features.extend(self.macip.map(|_| ("device-input", "macip-acl")));
        features
    }
}

/// A denied packet that a worker told of.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Nanoseconds of the engine's clock.
    pub time: u64,
    /// The interface whose lists dropped it.
    pub interface: SwIfIndex,
    /// Whether it was received there, or was to be sent.
    pub direction: Direction,
    /// The packet.
    pub tuple: Tuple,
    /// List and rule; `None` when none matched.
    pub rule: Option<(u32, u32)>,
}

/// All of policy.
#[derive(Debug, Default)]
pub(crate) struct Acls {
    pub(crate) lists: BTreeMap<u32, AclConfig>,
    pub(crate) macips: BTreeMap<u32, MacIpConfig>,
    pub(crate) bindings: BTreeMap<SwIfIndex, AclBinding>,
    pub(crate) denied: VecDeque<Denied>,
    pub(crate) timeouts: Timeouts,
    pub(crate) sessions: Option<Arc<SessionTable>>,
    pub(crate) max_sessions: Option<usize>,
    /// What has been compiled for the operation under way.
    pub(crate) ready: Ready,
    swept: usize,
    counters: Option<Counters>,
    /// Features that are switched on.
    on: BTreeSet<(SwIfIndex, &'static str, &'static str)>,
}

type Compiled = BTreeMap<Vec<u32>, Arc<Lists>>;

impl Acls {
    fn counters(&mut self, workers: usize) -> &mut Counters {
        self.counters.get_or_insert_with(|| Counters::new(workers))
    }

    /// Matches of a rule.
    pub(crate) fn count(&self, counter: u32) -> wharf_engine::counter::Count {
        self.counters.as_ref().map_or_else(Default::default, |c| c.table().get(counter))
    }

    /// Interfaces where a list is applied.
    pub(crate) fn applied(&self, acl: u32, direction: Direction) -> Vec<SwIfIndex> {
        let uses = |b: &&AclBinding| b.lists(direction).contains(&acl);
        self.bindings.iter().filter(|(_, b)| uses(b)).map(|(index, _)| *index).collect()
    }

    /// The compiled form of lists one behind the other, which is made once.
    fn compile(&self, acls: &[u32], made: &mut Compiled) -> Result<Option<Arc<Lists>>, OpError> {
        if acls.is_empty() {
            return Ok(None);
        }
        if let Some(lists) = made.get(acls) {
            return Ok(Some(Arc::clone(lists)));
        }
        let lists = self.ready.lists(acls, self.listed(acls, None))?;
        made.insert(acls.to_vec(), Arc::clone(&lists));
        Ok(Some(lists))
    }

    /// The rules of lists one behind the other; one of the lists may be given, with its rules and its first counter.
    fn listed(&self, acls: &[u32], changed: Option<(u32, &[Rule], u32)>) -> Rules {
        let mut all = Vec::new();
        for acl in acls {
            let (rules, counter) = match (changed, self.lists.get(acl)) {
                (Some((changed, rules, counter)), _) if changed == *acl => (rules, counter),
                (_, Some(config)) => (&*config.rules, config.counter),
                (_, None) => continue,
            };
            all.extend(rules.iter().zip(0..).map(|(rule, number)| ListedRule {
                rule: *rule,
                acl: *acl,
                number,
                counter: counter + number,
            }));
        }
        all
    }

    /// Compiles what is applied anew where list `changed` is in it, and returns the bindings with that.
    fn recompiled(&self, changed: Option<u32>) -> Result<BTreeMap<SwIfIndex, AclBinding>, OpError> {
        let mut made = Compiled::new();
        let mut bindings = self.bindings.clone();
        let is_stale = |acls: &[u32]| changed.is_some_and(|acl| acls.contains(&acl));
        for binding in self.bindings.values() {
            for direction in [Direction::Input, Direction::Output] {
                let acls = binding.lists(direction);
                if let Some(lists) = binding.compiled(direction).filter(|_| !is_stale(acls)) {
                    made.entry(acls.to_vec()).or_insert_with(|| Arc::clone(lists));
                }
            }
        }
        for binding in bindings.values_mut() {
            for direction in [Direction::Input, Direction::Output] {
                if is_stale(binding.lists(direction)) {
                    self.set_compiled(binding, direction, &mut made)?;
                }
            }
        }
        let bytes: usize = made.values().flat_map(|lists| lists.shapes()).map(|shape| shape.bytes).sum();
        if bytes > MAX_BYTES {
            let (have, max) = (bytes >> 20, MAX_BYTES >> 20);
            return OpError::refused(format!("all lists together would take {have} MiB of at most {max}"));
        }
        Ok(bindings)
    }

    fn set_compiled(
        &self,
        binding: &mut AclBinding,
        direction: Direction,
        made: &mut Compiled,
    ) -> Result<(), OpError> {
        let side = direction as usize;
        binding.compiled[side] = self.compile(binding.lists(direction), made)?;
        binding.epochs[side] = (binding.epochs[side] + 1) % EPOCHS;
        Ok(())
    }
}

impl Dataplane {
    /// A list, or an error that says that there is none.
    pub fn acl(&self, index: u32) -> Result<&AclConfig, OpError> {
        match self.acls.lists.get(&index) {
            Some(acl) => Ok(acl),
            None => OpError::parameter("acl", format!("there is no acl {index}")),
        }
    }

    /// Adds a list, or replaces list `index` while packets flow: each packet is judged by the whole old list or the whole new one. A list without
    /// rules lets nothing pass. Returns its index.
    pub fn set_acl(&mut self, index: Option<u32>, tag: &str, rules: Vec<Rule>) -> Result<u32, OpError> {
        if let Some(index) = index {
            self.acl(index)?;
        }
        let index = index.unwrap_or_else(|| free(&self.acls.lists));
        self.put_acl(index, tag, rules)?;
        Ok(index)
    }

    /// As [`Dataplane::set_acl`], with an index that may be free.
    pub(crate) fn put_acl(&mut self, index: u32, tag: &str, rules: Vec<Rule>) -> Result<(), OpError> {
        if rules.len() > MAX_RULES {
            return OpError::refused(format!("{} rules, and a list holds {MAX_RULES}", rules.len()));
        }
        if tag.len() > MAX_TAG {
            return OpError::parameter("tag", format!("the tag is longer than {MAX_TAG} characters"));
        }
        for (number, rule) in rules.iter().enumerate() {
            check(rule).map_err(|why| OpError::Refused(format!("rule {number}: {why}")))?;
        }
        let workers = self.engine.workers();
        let counter = self.acls.counters(workers).take(rules.len() as u32)?;
        let new = AclConfig { tag: tag.to_owned(), rules, counter };
        self.changes.touch(Object::Acl(index));
        let old = self.acls.lists.insert(index, new);
        match self.acls.recompiled(Some(index)) {
            Ok(bindings) => self.acls.bindings = bindings,
            Err(error) => {
                self.put_back(index, old, counter);
                return Err(error);
            }
        }
        self.publish_acls();
        if let Some(old) = old {
            self.acls.counters(workers).give_back(old.counter);
        }
        Ok(())
    }

    fn put_back(&mut self, index: u32, old: Option<AclConfig>, counter: u32) {
        match old {
            Some(old) => self.acls.lists.insert(index, old),
            None => self.acls.lists.remove(&index),
        };
        let workers = self.engine.workers();
        self.acls.counters(workers).give_back(counter);
    }

    /// Deletes a list that is not applied anywhere.
    pub fn delete_acl(&mut self, index: u32) -> Result<(), OpError> {
        let counter = self.acl(index)?.counter;
        for direction in [Direction::Input, Direction::Output] {
            if let Some(user) = self.acls.applied(index, direction).first() {
                let name = self.interface_name(*user);
                return OpError::parameter("acl", format!("acl {index} is applied to {name} {direction}"));
            }
        }
        self.changes.touch(Object::Acl(index));
        self.acls.lists.remove(&index);
        let workers = self.engine.workers();
        self.acls.counters(workers).give_back(counter);
        Ok(())
    }

    /// Sets the lists of an interface in one direction; none lets everything pass.
    pub fn set_interface_acls(
        &mut self,
        interface: SwIfIndex,
        direction: Direction,
        acls: Vec<u32>,
    ) -> Result<(), OpError> {
        self.record_mut(interface)?;
        for (i, acl) in acls.iter().enumerate() {
            self.acl(*acl)?;
            if acls[..i].contains(acl) {
                return OpError::parameter("acl", format!("acl {acl} is applied there already"));
            }
        }
        let mut binding = self.acls.bindings.get(&interface).cloned().unwrap_or_default();
        *binding.lists_mut(direction) = acls;
        let mut made = Compiled::new();
        for other in self.acls.bindings.values() {
            for direction in [Direction::Input, Direction::Output] {
                if let Some(lists) = other.compiled(direction) {
                    made.insert(other.lists(direction).to_vec(), Arc::clone(lists));
                }
            }
        }
        self.acls.set_compiled(&mut binding, direction, &mut made)?;
        let old = self.acls.bindings.insert(interface, binding);
        if let Err(error) = self.acls.recompiled(None) {
            self.restore(interface, old);
            return Err(error);
        }
        self.bound(interface)
    }

    fn restore(&mut self, interface: SwIfIndex, old: Option<AclBinding>) {
        match old {
            Some(old) => self.acls.bindings.insert(interface, old),
            None => self.acls.bindings.remove(&interface),
        };
    }

    /// Applies one more list, behind the others, or takes one away.
    pub fn add_interface_acl(
        &mut self,
        interface: SwIfIndex,
        direction: Direction,
        acl: u32,
        add: bool,
    ) -> Result<(), OpError> {
        let acls = self.changed_acls(interface, direction, acl, add)?;
        self.set_interface_acls(interface, direction, acls)
    }

    /// The lists of an interface with one more, or less.
    pub(crate) fn changed_acls(
        &self,
        interface: SwIfIndex,
        direction: Direction,
        acl: u32,
        add: bool,
    ) -> Result<Vec<u32>, OpError> {
        let binding = self.acls.bindings.get(&interface);
        let mut acls = binding.map_or_else(Vec::new, |b| b.lists(direction).to_vec());
        if add {
            acls.push(acl);
        } else {
            let Some(at) = acls.iter().position(|a| *a == acl) else {
                let name = self.interface_name(interface);
                return OpError::parameter("acl", format!("acl {acl} is not applied to {name} {direction}"));
            };
            acls.remove(at);
        }
        Ok(acls)
    }

    /// Sets which EtherTypes pass an interface in L2 mode besides those of IP; `None` is all.
    pub fn set_etype_whitelist(
        &mut self,
        interface: SwIfIndex,
        direction: Direction,
        etypes: Option<Vec<u16>>,
    ) -> Result<(), OpError> {
        self.record_mut(interface)?;
        let binding = self.acls.bindings.entry(interface).or_default();
        binding.etypes[direction as usize] = etypes;
        self.bound(interface)
    }

    /// What is applied to an interface has changed.
    fn bound(&mut self, interface: SwIfIndex) -> Result<(), OpError> {
        if self.acls.bindings.values().any(AclBinding::reflects) && self.acls.sessions.is_none() {
            self.acls.sessions = Some(self.new_session_table()?);
        }
        self.publish_acls();
        if self.acls.bindings.get(&interface).is_some_and(AclBinding::is_empty) {
            self.acls.bindings.remove(&interface);
            self.publish_acls();
        }
        // The ports say whether there are features.
        self.publish();
        Ok(())
    }

    /// Makes policy visible to the workers: tables first, then the features that read them.
    pub(crate) fn publish_acls(&mut self) {
        let wanted: BTreeSet<_> = (self.acls.bindings.iter())
            .flat_map(|(index, b)| b.features().into_iter().map(|(arc, node)| (*index, arc, node)))
            .collect();
        let tables = self.acl_tables();
        self.tables.acl.publish(tables);
        let on = std::mem::take(&mut self.acls.on);
        for (index, arc, node) in on.difference(&wanted) {
            self.switch(arc, node, *index, false);
        }
        for (index, arc, node) in wanted.difference(&on) {
            self.switch(arc, node, *index, true);
        }
        self.acls.on = wanted;
    }

    fn switch(&mut self, arc: &str, node: &str, index: SwIfIndex, on: bool) {
        let wanted = |record: &Interface| record.features.get(arc).is_some_and(|of| of.contains(node));
        if !on && self.interfaces.get(&index).is_some_and(wanted) {
            // The operator has switched it on.
            return;
        }
        if let Err(error) = self.engine.set_feature(arc, node, index, on) {
            tracing::error!("{}: {node}: {error}", self.interface_name(index));
        }
    }

    fn acl_tables(&self) -> AclTables {
        let count = self.acls.bindings.keys().last().map_or(0, |i| i.index() + 1);
        let counters = self.acls.counters.as_ref().map(Counters::table);
        let mut tables = AclTables {
            interfaces: vec![None; count],
            sessions: self.acls.sessions.clone(),
            share: self.session_share(),
            timeouts: self.acls.timeouts,
            ..AclTables::default()
        };
        if let Some(counters) = counters {
            tables.counters = Arc::clone(counters);
        }
        for (index, binding) in &self.acls.bindings {
            let side = |i: usize| Side {
                lists: binding.compiled[i].clone(),
                epoch: binding.epochs[i],
                etypes: binding.etypes[i].as_deref().map(Arc::from),
            };
            let macip = binding.macip.and_then(|index| self.acls.macips.get(&index));
            tables.interfaces[index.index()] = Some(Arc::new(InterfaceAcl {
                input: side(0),
                output: side(1),
                reflects: binding.reflects(),
                ip_mode: self.interfaces.get(index).is_some_and(|record| record.point_to_point),
                macip: macip.map(|c| Arc::new(MacIpList { rules: c.rules.clone(), counter: c.counter() })),
            }));
        }
        tables
    }

    /// Whether an interface has features on the arcs of L2 input and output.
    pub(crate) fn acl_features(&self, index: SwIfIndex) -> [bool; 2] {
        let features = self.acls.bindings.get(&index).map(AclBinding::features).unwrap_or_default();
        ["l2-input", "l2-output"].map(|start| features.iter().any(|(arc, _)| arc.starts_with(start)))
    }

    /// Forgets what was applied to an interface that is being deleted.
    pub(crate) fn forget_acls(&mut self, index: SwIfIndex) {
        if self.acls.bindings.remove(&index).is_some() {
            self.publish_acls();
            self.close_sessions(|session| session.key.interface() == index);
        }
    }

    /// A worker told of a denied packet.
    pub(crate) fn acl_denied(&mut self, denied: Denied) {
        let why = match denied.rule {
            Some((acl, rule)) => format!("acl {acl} rule {rule}"),
            None => "no rule matched".to_owned(),
        };
        let name = self.interface_name(denied.interface);
        tracing::info!("acl: {name} {} denied {}: {why}", denied.direction, denied.tuple);
        self.acls.denied.push_back(denied);
        if self.acls.denied.len() > MAX_DENIED {
            self.acls.denied.pop_front();
        }
    }
}

/// The lowest free index.
fn free<T>(lists: &BTreeMap<u32, T>) -> u32 {
    (0..).find(|n| !lists.contains_key(n)).unwrap_or(0)
}

/// Whether a rule makes sense.
fn check(rule: &Rule) -> Result<(), String> {
    if rule.src.is_v6() != rule.dst.is_v6() {
        return Err(format!("src {} and dst {} are of different families", rule.src, rule.dst));
    }
    for (what, (first, last)) in [("sport", rule.sport), ("dport", rule.dport)] {
        if first > last {
            return Err(format!("{what} {first}-{last} ends before it begins"));
        }
    }
    let stray = rule.tcp_value.0 & !rule.tcp_mask.0;
    if stray != 0 {
        return Err(format!(
            "tcpflags {} has bits that are not in mask {}",
            rule.tcp_value.0, rule.tcp_mask.0
        ));
    }
    Ok(())
}

/// What a rule does, as a verdict on a packet.
fn passes(action: Action) -> bool {
    action != Action::Deny
}
