//! Messages of VPP's module `bond`.

use super::super::{Handlers, Text, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "bond", version: (2, 1, 0), messages: MESSAGES };

api! {
    /// How a bond works.
    enum BondMode = bond_mode: u32 {
        BOND_API_MODE_ROUND_ROBIN = 1, BOND_API_MODE_ACTIVE_BACKUP = 2, BOND_API_MODE_XOR = 3,
        BOND_API_MODE_BROADCAST = 4, BOND_API_MODE_LACP = 5,
    }

    /// How a bond chooses a member.
    enum BondLbAlgo = bond_lb_algo: u32 {
        BOND_API_LB_ALGO_L2 = 0, BOND_API_LB_ALGO_L34 = 1, BOND_API_LB_ALGO_L23 = 2,
        BOND_API_LB_ALGO_RR = 3, BOND_API_LB_ALGO_BC = 4, BOND_API_LB_ALGO_AB = 5,
    }

    /// Asks for the bonds.
    dump SwBondInterfaceDump = sw_bond_interface_dump { sw_if_index: InterfaceIndex = "4294967295" }
        -> SwBondInterfaceDetails = sw_bond_interface_details {
        sw_if_index: InterfaceIndex, id: u32, mode: BondMode, lb: BondLbAlgo, numa_only: bool,
        active_members: u32, members: u32, interface_name: Text<64>,
    };

    /// Asks for the members of a bond.
    dump SwMemberInterfaceDump = sw_member_interface_dump { sw_if_index: InterfaceIndex }
        -> SwMemberInterfaceDetails = sw_member_interface_details {
        sw_if_index: InterfaceIndex, interface_name: Text<64>, is_passive: bool, is_long_timeout: bool,
        is_local_numa: bool, weight: u32,
    };
}

pub(super) fn handlers(_: &mut Handlers) {}
