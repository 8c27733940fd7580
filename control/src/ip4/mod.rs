//! The control plane of IPv4: routes, neighbours, and what the workers see of them.

mod address;
mod adjacency;
mod counted;
mod fib;
mod forwarding;
mod neighbour;

pub use adjacency::{AdjacencyKey, AdjacencyTable};
pub use counted::RouteNumbers;
pub use fib::{Fib, MAX_ROUTES, Route, RouteSource, Via, Way};
pub use neighbour::{
    DEFAULT_AGE, Due, MAX_NEIGHBOURS, Neighbour, NeighbourState, Neighbours, NeighboursError,
};
