//! Access lists: the classifier, and the nodes in the graph.

mod attacks;
mod classifier;
#[path = "../common/mod.rs"]
mod common;
mod guard;
mod icmp_errors;
mod nodes;
mod oracle;

use proptest::test_runner::{FailurePersistence, FileFailurePersistence};

/// Where the seeds of failed cases are kept.
fn seeds() -> Option<Box<dyn FailurePersistence>> {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acl/proptest-regressions.txt");
    Some(Box::new(FileFailurePersistence::Direct(FILE)))
}
