//! Who is connected.

use super::{Peer, Rights};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A client of a socket.
#[derive(Clone, Debug, Default)]
pub struct ClientRecord {
    /// As it calls itself; empty where it does not.
    pub name: String,
    /// Who it is.
    pub peer: Peer,
    /// What it may do.
    pub rights: Rights,
    /// How many requests it has sent.
    pub requests: u64,
}

/// The clients of a socket, in the order in which they came. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<BTreeMap<u64, ClientRecord>>>);

impl Clients {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, ClientRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place among `limit`; `None` when there is none. An eighth of them is kept for operators.
    pub fn enter(&self, record: ClientRecord, limit: usize, operator: bool) -> Option<Place> {
        let kept = if operator { 0 } else { limit.div_ceil(8) };
        let mut clients = self.lock();
        if clients.len() >= limit.saturating_sub(kept) {
            return None;
        }
        let number = clients.keys().last().map_or(1, |last| last + 1);
        clients.insert(number, record);
        Some(Place { clients: self.clone(), number })
    }

    /// All, with their numbers.
    pub fn list(&self) -> Vec<(u64, ClientRecord)> {
        self.lock().iter().map(|(number, record)| (*number, record.clone())).collect()
    }
}

/// A client's place in the list, given up when dropped.
#[derive(Debug)]
pub struct Place {
    clients: Clients,
    number: u64,
}

impl Place {
    /// Changes the client's record.
    pub fn update(&self, change: impl FnOnce(&mut ClientRecord)) {
        if let Some(record) = self.clients.lock().get_mut(&self.number) {
            change(record);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_given_back_and_kept_for_operators() {
        let clients = Clients::default();
        let enter = |operator| clients.enter(ClientRecord::default(), 8, operator);
        let mut places: Vec<Place> = (0..7).map(|_| enter(false).unwrap()).collect();
        assert!(enter(false).is_none());
        places.push(enter(true).unwrap());
        assert!(enter(true).is_none());
        places[3].update(|record| record.name = "x".into());
        assert_eq!(clients.list()[3].1.name, "x");
        places.remove(3);
        assert_eq!(clients.list().len(), 7);
        drop(places);
        assert!(clients.list().is_empty());
        assert!(clients.enter(ClientRecord::default(), 0, true).is_none());
    }
}
