//! The MAC table from main's side: static entries, ageing, flushing, looking.

use crate::config::Object;
use crate::dataplane::{Dataplane, OpError};
use crate::startup::L2FibConfig;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharf_engine::{SwIfIndex, clock};
use wharf_nodes::l2::{MacEntry, MacTable, Stamp, key};
use wharf_nodes::wire::MacAddress;

/// Calls of [`Dataplane::age_macs`] in which the whole table is gone through.
const STEPS: usize = 50;

/// The table, and how far ageing has come.
#[derive(Debug, Default)]
pub(crate) struct Macs {
    table: Option<Arc<MacTable>>,
    next: usize,
    scan: Duration,
    last_scan: Duration,
    config: L2FibConfig,
}

impl Macs {
    /// How large it will be when it is made.
    pub(crate) fn set_config(&mut self, config: L2FibConfig) {
        self.config = config;
    }

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
    /// Addresses that may be learned in all.
    pub limit: u32,
    /// Addresses that there is room for.
    pub capacity: usize,
    /// Bytes of the table.
    pub memory: usize,
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
        let L2FibConfig { learn_limit, .. } = self.macs.config;
        let seed = [random.hash_one(1), random.hash_one(2)];
        let made = MacTable::new(self.macs.config.buckets(), learn_limit, seed);
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
        self.changes.touch(Object::L2Fib(domain, mac));
        self.macs()?.set(key(number, mac), entry).map_err(|e| OpError::Refused(e.to_string()))
    }

    /// An address of a domain that the operator set.
    pub(crate) fn static_mac(&self, domain: u32, mac: MacAddress) -> Option<MacEntry> {
        let number = self.bridges.get(&domain)?.index;
        self.macs.table()?.get(key(number, mac)).filter(|entry| entry.is_static())
    }

    /// Forgets an address of a domain.
    pub fn delete_mac(&mut self, mac: MacAddress, domain: u32) -> Result<(), OpError> {
        let number = self.domain(domain)?.index;
        self.changes.touch(Object::L2Fib(domain, mac));
        match self.macs()?.remove(key(number, mac)) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => OpError::parameter("mac", format!("bridge-domain {domain} does not know {mac}")),
            Err(error) => OpError::refused(error.to_string()),
        }
    }

    /// Forgets addresses.
    pub fn flush_macs(&mut self, what: Flush) {
        // What a worker does with the tables of before, it may still learn.
        self.wait_for_workers();
        let Some(table) = self.macs.table.clone() else { return };
        let number = |id: u32| self.bridges.get(&id).map(|d| d.index);
        let wanted = |domain: u16, entry: MacEntry| match what {
            Flush::Learned => !entry.is_static(),
            Flush::LearnedBehind(port) => !entry.is_static() && entry.port() == port,
            Flush::LearnedIn(id) => !entry.is_static() && number(id) == Some(domain),
            Flush::Interface(port) => entry.port() == port && !entry.is_filter(),
            Flush::Domain(id) => number(id) == Some(domain),
        };
        let mut gone = Vec::new();
        for part in 0..table.parts() {
            table.sweep(part, |domain, mac, entry| {
                let unwanted = wanted(domain, entry);
                if unwanted && entry.is_static() {
                    gone.push((domain, mac));
                }
                unwanted
            });
        }
        for (number, mac) in gone {
            let domain = self.bridges.iter().find(|(_, domain)| domain.index == number);
            if let Some((domain, _)) = domain {
                self.changes.touch(Object::L2Fib(*domain, mac));
            }
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

    /// The addresses in a part of the table (see [`Dataplane::mac_parts`]), or those of a domain, in no order.
    pub fn mac_rows(&self, only: Option<u32>, part: usize) -> Vec<MacRow> {
        let Some(table) = self.macs.table().filter(|table| part < table.parts()) else { return Vec::new() };
        let (now, mut rows) = (now(), Vec::new());
        let domains: HashMap<u16, (u32, u8)> =
            self.bridges.iter().map(|(id, d)| (d.index, (*id, d.mac_age))).collect();
        table.sweep(part, |index, mac, entry| {
            if let Some((domain, minutes)) = domains.get(&index).filter(|d| only.is_none_or(|o| o == d.0)) {
                let units = u64::from(now.since(entry.stamp()));
                let age = ((units << 30) / 60_000_000_000) as u16;
                let ages = !entry.is_static() && *minutes != 0;
                rows.push(MacRow { mac, domain: *domain, index, entry, age: ages.then_some(age) });
            }
            false
        });
        rows
    }

    /// How many parts the table has.
    pub fn mac_parts(&self) -> usize {
        self.macs.table().map_or(0, |table| table.parts())
    }

    /// The addresses that operators set, in a part of the table: domain and address.
    pub(crate) fn static_macs(&self, part: usize) -> Vec<(u32, MacAddress)> {
        let Some(table) = self.macs.table().filter(|table| part < table.parts()) else { return Vec::new() };
        let mut found = Vec::new();
        table.sweep(part, |number, mac, entry| {
            if entry.is_static() {
                found.push((number, mac));
            }
            false
        });
        if found.is_empty() {
            return Vec::new();
        }
        let domains: HashMap<u16, u32> = self.bridges.iter().map(|(id, d)| (d.index, *id)).collect();
        found.into_iter().filter_map(|(number, mac)| Some((*domains.get(&number)?, mac))).collect()
    }

    /// See [`MacSummary`]; `None` while there is no bridge domain, and so no table.
    pub fn mac_summary(&self) -> Option<MacSummary> {
        let table = self.macs.table()?;
        let (total, learned) = table.len();
        Some(MacSummary {
            total,
            learned,
            limit: table.limit(),
            capacity: table.capacity(),
            memory: table.memory(),
            last_scan: self.macs.last_scan,
        })
    }

    /// How large the table of MAC addresses will be when it is made, with the first bridge domain.
    pub fn set_l2fib(&mut self, config: L2FibConfig) {
        self.macs.set_config(config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::Lab;

    /// Bridge domains 5, which forgets after two minutes, and 6, which never does, with interfaces `pg0` and `pg1` in 5, and `pg2` in 6.
    fn bridges() -> (Lab, [SwIfIndex; 3]) {
        let mut dp = crate::config::tests::dataplane();
        let registry = crate::commands::registry().unwrap();
        let mut run = |line: &str| {
            registry
                .execute(&mut dp, line, &mut crate::cli::Output::new())
                .map_err(|e| e.to_string())
                .unwrap();
        };
        run("create bridge-domain 5 mac-age 2");
        run("create bridge-domain 6");
        for (n, domain) in [(0, 5), (1, 5), (2, 6)] {
            run(&format!("create packet-generator interface pg{n}"));
            run(&format!("set interface l2 bridge pg{n} {domain}"));
        }
        let ports = ["pg0", "pg1", "pg2"].map(|name| dp.find_interface(name).unwrap());
        (dp, ports)
    }

    fn station(n: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, n])
    }

    /// By domain and address.
    fn rows(dp: &Dataplane, only: Option<u32>) -> Vec<MacRow> {
        let mut rows: Vec<MacRow> = (0..dp.mac_parts()).flat_map(|part| dp.mac_rows(only, part)).collect();
        rows.sort_by_key(|row| (row.domain, row.mac));
        rows
    }

    /// The last bytes of the addresses that are known.
    fn known(dp: &Dataplane) -> Vec<u8> {
        rows(dp, None).iter().map(|row| row.mac.0[5]).collect()
    }

    fn learn(dp: &mut Dataplane, n: u8, domain: u32, port: SwIfIndex, seen: Stamp) {
        let number = dp.domain(domain).unwrap().index;
        dp.macs().unwrap().learn(key(number, station(n)), port, seen, [100, 100]);
    }

    #[test]
    fn what_is_not_seen_for_long_is_forgotten() {
        let (mut dp, [pg0, pg1, pg2]) = bridges();
        let ago =
            |minutes, units: u16| Stamp(now().0.wrapping_sub(Stamp::minutes(minutes)).wrapping_sub(units));
        learn(&mut dp, 1, 5, pg0, now());
        learn(&mut dp, 2, 5, pg0, ago(1, 1));
        learn(&mut dp, 3, 5, pg1, ago(2, 2));
        learn(&mut dp, 4, 6, pg2, ago(3, 0));
        dp.add_mac(station(5), 5, Some(pg0)).unwrap();
        let ages: Vec<_> = rows(&dp, Some(5)).iter().map(|row| row.age).collect();
        assert_eq!(ages, [Some(0), Some(1), Some(2), None]);
        for _ in 0..STEPS {
            dp.age_macs();
        }
        assert_eq!(known(&dp), [1, 2, 5, 4]);
        assert_eq!(dp.mac_summary().map(|s| (s.total, s.learned)), Some((4, 3)));
        // It is seen again, now behind another port.
        learn(&mut dp, 3, 5, pg0, now());
        assert_eq!(dp.macs().unwrap().of_port(pg0), 3);
        dp.shut_down();
    }

    #[test]
    fn what_a_flush_takes() {
        let (mut dp, [pg0, pg1, pg2]) = bridges();
        let fill = |dp: &mut Dataplane| {
            dp.flush_macs(Flush::Learned);
            for (n, domain, port) in [(1, 5, pg0), (2, 5, pg1), (3, 6, pg2)] {
                learn(dp, n, domain, port, now());
            }
            dp.add_mac(station(4), 5, Some(pg0)).unwrap();
            dp.add_mac(station(5), 5, None).unwrap();
        };
        for (flush, stays) in [
            (Flush::Learned, &[4, 5][..]),
            (Flush::LearnedBehind(pg0), &[2, 4, 5, 3]),
            (Flush::LearnedIn(5), &[4, 5, 3]),
            // An interface that goes takes what was set for it along, and leaves the filters.
            (Flush::Interface(pg0), &[2, 5, 3]),
            (Flush::Domain(5), &[3]),
        ] {
            fill(&mut dp);
            dp.flush_macs(flush);
            assert_eq!(known(&dp), stays, "{flush:?}");
        }
        fill(&mut dp);
        dp.set_l3(pg1).unwrap();
        assert_eq!(known(&dp), [1, 4, 5, 3], "a port that leaves its domain");
        dp.shut_down();
    }
}
