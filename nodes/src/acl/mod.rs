//! Access lists, after VPP's acl plugin: [`rule`] says what a rule means, [`classifier`] finds the first of many that matches.

pub mod classifier;
mod lists;
pub mod rule;

pub use lists::{Fields, ListedRule, Lists};
pub use rule::{AclPrefix, Action, Rule, Tuple};
