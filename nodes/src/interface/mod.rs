//! Interfaces as the nodes see them, and the node in front of the devices.

mod interface_output;
mod tables;

pub use interface_output::{InterfaceOutput, InterfaceOutputArc};
pub use tables::{InputMode, InterfaceEntry, InterfaceTables};

use wharf_engine::FeatureArc;

/// Arc `device-input`: between a device and `ethernet-input`.
#[derive(Debug)]
pub struct DeviceInputArc;

impl FeatureArc for DeviceInputArc {
    const NAME: &'static str = "device-input";
    type Meta = ();
    const END: &'static str = "ethernet-input";
}
