//! Deleting interfaces.

use super::InterfaceKind;
use crate::cli::{CliError, Hold, in_turn};
use crate::dataplane::{Dataplane, OpError};
use crate::ip4::RouteSource;
use crate::l2::L2Mode;
use std::net::Ipv4Addr;
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::ip4::Ip4Prefix;

/// Routes that a piece looks at.
const PIECE: usize = 1024;

/// How far the routes of an interface that is being deleted are gone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum RoutesGone {
    /// Nobody is deleting it.
    #[default]
    No,
    /// Those of the tables before this one, and in it up to this route.
    To(u32, Option<Ip4Prefix>),
    /// All that there were.
    All,
}

/// Deletes an interface, piece by piece.
///
/// # Errors
/// As [`Dataplane::delete_interface`].
pub(crate) fn delete_interface(on: &mut dyn Hold<Dataplane>, index: SwIfIndex) -> Result<(), CliError> {
    while !in_turn(on, |dp| Ok(dp.delete_interface_piece(index)?))? {}
    Ok(())
}

impl Dataplane {
    /// As [`Dataplane::delete_interface`], in pieces, as there may be a million routes; whether it is deleted now. It is down from the first
    /// piece on.
    pub(crate) fn delete_interface_piece(&mut self, index: SwIfIndex) -> Result<bool, OpError> {
        match self.drop_routes(index)? {
            true => self.delete_interface(index).map(|()| true),
            false => Ok(false),
        }
    }

    /// Removes some of the operator's routes that need an interface, or a part of it. True when there are no more.
    fn drop_routes(&mut self, index: SwIfIndex) -> Result<bool, OpError> {
        for child in self.parts_of(index) {
            if !self.drop_routes(child)? {
                return Ok(false);
            }
        }
        let record = self.record_mut(index)?;
        let (table, last) = match record.routes_gone {
            RoutesGone::All => return Ok(true),
            RoutesGone::To(table, last) => (table, last),
            RoutesGone::No => {
                record.admin_up = false;
                self.apply(index);
                (0, None)
            }
        };
        let mut gone = RoutesGone::All;
        if let Some((&table, fib)) = self.fibs.range(table..).next() {
            let (found, last) = fib.through_after(index, RouteSource::Cli, last, PIECE);
            for prefix in found {
                self.delete_route(table, prefix, RouteSource::Cli)?;
            }
            gone = match last {
                Some(_) => RoutesGone::To(table, last),
                None => table.checked_add(1).map_or(RoutesGone::All, |table| RoutesGone::To(table, None)),
            };
        }
        if let Some(record) = self.interfaces.get_mut(&index) {
            record.routes_gone = gone;
        }
        Ok(matches!(gone, RoutesGone::All))
    }

    /// The interfaces that go with one.
    fn parts_of(&self, index: SwIfIndex) -> Vec<SwIfIndex> {
        let groups =
            self.vxlan.list.iter().filter(|(_, c)| c.group == Some(index)).map(|(tunnel, _)| *tunnel);
        self.children(index).chain(groups).collect()
    }

    /// Deletes an interface and everything that depends on it.
    pub fn delete_interface(&mut self, index: SwIfIndex) -> Result<(), OpError> {
        self.record_mut(index)?;
        for child in self.parts_of(index) {
            self.delete_interface(child)?;
        }
        self.forget_spans(index)?;
        self.set_l3(index)?;
        let record = self.record_mut(index)?;
        record.admin_up = false;
        let (kind, addresses) = (record.kind, record.addresses.clone());
        self.apply(index);
        for (address, len) in addresses {
            self.delete_address(index, address, len)?;
        }
        let neighbours: Vec<Ipv4Addr> = self.neighbours.on(index).map(|(a, _)| a).collect();
        // The workers see all of them go at once.
        let already_waits = self.waiting.is_some();
        self.waiting.get_or_insert_default();
        neighbours.into_iter().for_each(|a| self.forget_neighbour(index, a));
        if !already_waits {
            self.publish_waiting();
        }
        for (table, prefix, source) in self.routes_through(index) {
            self.delete_route(table, prefix, source)?;
        }
        let peers: Vec<SwIfIndex> = self
            .interfaces
            .iter()
            .filter(|(_, i)| i.mode == L2Mode::Xconnect(index))
            .map(|(i, _)| *i)
            .collect();
        for peer in peers {
            self.set_l3(peer)?;
        }
        self.forget_acls(index);
        self.engine.clear_features(index);
        self.detach(index)?;
        match kind {
            InterfaceKind::Memif => self.memif.delete(index)?,
            InterfaceKind::Pg => drop(self.pg.remove(&index)),
            InterfaceKind::AfXdp => self.xdp.delete(index)?,
            InterfaceKind::Vxlan => self.forget_vxlan(index),
            InterfaceKind::Local | InterfaceKind::Loopback | InterfaceKind::Sub => {}
        }
        let gone = self.interfaces.remove(&index);
        if let Some(record) = &gone {
            self.stats.remove_interface(&self.engine, index, &record.name);
            self.changes.gone(&record.name);
        }
        let parent = gone.and_then(|record| record.sub).map(|sub| sub.parent);
        self.apply(index);
        if let Some(parent) = parent {
            self.apply(parent);
        }
        Ok(())
    }
}
