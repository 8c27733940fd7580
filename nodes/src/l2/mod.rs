//! Layer 2: frames that are forwarded as they are.

mod l2_input;

pub use l2_input::L2Input;
