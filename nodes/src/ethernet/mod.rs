//! Ethernet, and the sub-interfaces that VLAN tags make of an interface.

mod ethernet_input;
mod sub_interface_output;
mod sub_interfaces;
pub mod trace;

pub use ethernet_input::EthernetInput;
pub use sub_interface_output::SubInterfaceOutput;
pub use sub_interfaces::{SubInterfaces, SubMatch, SubOutput, Taken, VlanId};
