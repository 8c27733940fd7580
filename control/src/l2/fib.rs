//! The MAC table from main's side: static entries, ageing, flushing, looking.

use crate::dataplane::{Dataplane, OpError};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharf_engine::{SwIfIndex, clock};
use wharf_nodes::l2::{DEFAULT_BUCKETS, MacEntry, MacTable, Stamp, key};
use wharf_nodes::wire::MacAddress;

/// How long a flush waits for the workers to have seen that they are not to learn there any more.
const SEEN: Duration = Duration::from_millis(100);
/// Calls of [`Dataplane::age_macs`] in which the whole table is gone through.
const STEPS: usize = 50;

/// The table, and how far ageing has come.
#[derive(Debug, Default)]
pub(crate) struct Macs {
    table: Option<Arc<MacTable>>,
    next: usize,
    scan: Duration,
    last_scan: Duration,
}

impl Macs {
    pub(crate) fn table(&self) -> Option<&Arc<MacTable>> {
        self.table.as_ref()
    }
}

/// Which addresses to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All that were learned.
    Learned,
    /// All that were learned behind an interface.
    LearnedBehind(SwIfIndex),
    /// All that were learned in a bridge domain.
    LearnedIn(u32),
    /// All behind an interface: it leaves its domain.
    Interface(SwIfIndex),
    /// All in a domain: it goes.
    Domain(u32),
}

/// An address, for `show l2fib`.
#[derive(Clone, Debug)]
pub struct MacRow {
    /// The address.
    pub mac: MacAddress,
    /// Its domain's number as the operator calls it.
    pub domain: u32,
    /// Its domain's number in the tables.
    pub index: u16,
    /// What is known.
    pub entry: MacEntry,
    /// Minutes since it was seen last, if it was learned and its domain forgets.
    pub age: Option<u16>,
}

/// The last line of `show l2fib`.
#[derive(Clone, Copy, Debug)]
pub struct MacSummary {
    /// Addresses in all.
    pub total: u32,
    /// Those that were learned.
    pub learned: u32,
    /// How long it took to go through the table the last time.
    pub last_scan: Duration,
}

fn now() -> Stamp {
    Stamp::of(clock::nanos())
}

impl Dataplane {
    /// The table, which is made when it is first needed.
    pub(crate) fn macs(&mut self) -> Result<Arc<MacTable>, OpError> {
        if let Some(table) = &self.macs.table {
            return Ok(Arc::clone(table));
        }
        let random = RandomState::new();
        let made = MacTable::new(DEFAULT_BUCKETS, [random.hash_one(1), random.hash_one(2)]);
        let table = Arc::new(made.map_err(|e| OpError::Refused(e.to_string()))?);
        self.macs.table = Some(Arc::clone(&table));
        Ok(table)
    }

    /// Sets an address of a domain: behind `interface`, or to be dropped.
    pub fn add_mac(
        &mut self,
        mac: MacAddress,
        domain: u32,
        interface: Option<SwIfIndex>,
    ) -> Result<(), OpError> {
        if mac.is_multicast() || mac.is_zero() {
            return OpError::parameter("mac", format!("{mac} is not the address of a station"));
        }
        let number = self.domain(domain)?.index;
        let entry = match interface {
            None => MacEntry::filter(),
            Some(interface) => {
                let record = self.record(interface)?;
                if record.mode.domain() != Some(domain) {
                    return OpError::parameter(
                        "interface",
                        format!("{} is not in bridge-domain {domain}", record.name),
                    );
                }
                if record.mode.is_bvi() { MacEntry::bvi(interface) } else { MacEntry::fixed(interface) }
            }
        };
        self.macs()?.set(key(number, mac), entry).map_err(|e| OpError::Refused(e.to_string()))
    }

    /// Forgets an address of a domain.
    pub fn delete_mac(&mut self, mac: MacAddress, domain: u32) -> Result<(), OpError> {
        let number = self.domain(domain)?.index;
        match self.macs()?.remove(key(number, mac)) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => OpError::parameter("mac", format!("bridge-domain {domain} does not know {mac}")),
            Err(error) => OpError::refused(error.to_string()),
        }
    }

    /// Forgets addresses.
    pub fn flush_macs(&mut self, what: Flush) {
        // What a worker does with the tables of before, it may still learn.
        self.engine.domain().synchronize(SEEN);
        let Some(table) = self.macs.table.clone() else { return };
        let number = |id: u32| self.bridges.get(&id).map(|d| d.index);
        let wanted = |domain: u16, entry: MacEntry| match what {
            Flush::Learned => !entry.is_static(),
            Flush::LearnedBehind(port) => !entry.is_static() && entry.port() == port,
            Flush::LearnedIn(id) => !entry.is_static() && number(id) == Some(domain),
            Flush::Interface(port) => entry.port() == port && !entry.is_filter(),
            Flush::Domain(id) => number(id) == Some(domain),
        };
        for part in 0..table.parts() {
            table.sweep(part, |domain, _, entry| wanted(domain, entry));
        }
    }

    /// Goes through a part of the table and forgets what is too old. Called by housekeeping.
    pub(crate) fn age_macs(&mut self) {
        let Some(table) = self.macs.table.clone() else { return };
        let ages: Vec<u16> = {
            let last = self.bridges.values().map(|d| usize::from(d.index)).max().unwrap_or(0);
            let mut ages = vec![0; last + 1];
            for domain in self.bridges.values() {
                ages[usize::from(domain.index)] = Stamp::minutes(domain.mac_age);
            }
            ages
        };
        let start = Instant::now();
        let (from, now) = (self.macs.next, now());
        let to = (from + table.parts().div_ceil(STEPS)).min(table.parts());
        for part in from..to {
            table.sweep(part, |domain, _, entry| {
                let age = ages.get(usize::from(domain)).copied().unwrap_or(0);
                age != 0 && !entry.is_static() && now.since(entry.stamp()) > age
            });
        }
        self.macs.scan += start.elapsed();
        self.macs.next = to;
        if to == table.parts() {
            self.macs.next = 0;
            self.macs.last_scan = std::mem::take(&mut self.macs.scan);
        }
    }

    /// All addresses, or those of a domain, by domain and address.
    pub fn mac_rows(&self, only: Option<u32>) -> Vec<MacRow> {
        let Some(table) = self.macs.table() else { return Vec::new() };
        let (now, mut rows) = (now(), Vec::new());
        let domains: HashMap<u16, (u32, u8)> =
            self.bridges.iter().map(|(id, d)| (d.index, (*id, d.mac_age))).collect();
        for part in 0..table.parts() {
            table.sweep(part, |index, mac, entry| {
                if let Some((domain, minutes)) = domains.get(&index).filter(|d| only.is_none_or(|o| o == d.0))
                {
                    let units = u64::from(now.since(entry.stamp()));
                    let age = ((units << 30) / 60_000_000_000) as u16;
                    let ages = !entry.is_static() && *minutes != 0;
                    rows.push(MacRow { mac, domain: *domain, index, entry, age: ages.then_some(age) });
                }
                false
            });
        }
        rows.sort_by_key(|row| (row.domain, row.mac));
        rows
    }

    /// See [`MacSummary`].
    pub fn mac_summary(&self) -> MacSummary {
        let (total, learned) = self.macs.table().map_or((0, 0), |table| table.len());
        MacSummary { total, learned, last_scan: self.macs.last_scan }
    }
}
