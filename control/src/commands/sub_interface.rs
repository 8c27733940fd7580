//! Commands about sub-interfaces.

use crate::cli::{Args, CliError, Command, Output};
use crate::dataplane::Dataplane;
use crate::interface::InterfaceKind;
use wharf_engine::SwIfIndex;
use wharf_nodes::ethernet::{SubMatch, VlanId};
use wharf_nodes::wire::ethernet::{EtherType, VlanTag};

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "create sub-interfaces",
        "<interface> <id:u32> [default|untagged|{dot1q <outer:word>|dot1ad <outer:word>} [inner-dot1q <inner:word>] [exact-match]]",
        "Create a sub-interface for frames with certain VLAN tags",
        create,
    ),
    Command::new("delete sub-interface", "<interface>", "Delete a sub-interface", delete),
];

fn vlan(word: &str) -> Result<VlanId, CliError> {
    match word.parse::<u16>() {
        _ if word == "any" => Ok(VlanId::Any),
        Ok(id) if id <= VlanTag::MAX_ID => Ok(VlanId::Id(id)),
        _ => {
            Err(CliError::new(format!("`{word}' is neither `any' nor a VLAN from 0 to {}", VlanTag::MAX_ID)))
        }
    }
}

fn create(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    let id = args.u32("id")?;
    let which = match () {
        () if args.flag("default") => SubMatch::Default,
        () if args.flag("untagged") => SubMatch::Untagged,
        () if args.flag("dot1q") || args.flag("dot1ad") => SubMatch::Tags {
            outer_type: if args.flag("dot1ad") { EtherType::QINQ } else { EtherType::VLAN },
            outer: vlan(&args.text("outer")?)?,
            inner: args.opt::<String>("inner")?.map(|word| vlan(&word)).transpose()?,
            exact: args.flag("exact-match"),
        },
        // As VPP has it: the number alone is the VLAN.
        () => SubMatch::Tags {
            outer_type: EtherType::VLAN,
            outer: vlan(&id.to_string())?,
            inner: None,
            exact: true,
        },
    };
    let index = dp.create_sub_interface(SwIfIndex(args.interface("interface")?), id, which)?;
    out.line(dp.interface_name(index));
    Ok(())
}

fn delete(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    let index = SwIfIndex(args.interface("interface")?);
    if dp.interfaces.get(&index).is_none_or(|record| record.kind != InterfaceKind::Sub) {
        return Err(CliError::new(format!("{} is not a sub-interface", dp.interface_name(index))));
    }
    Ok(dp.delete_interface(index)?)
}
