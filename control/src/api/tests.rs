//! Tests of the messages as a whole.

use super::schema::Role;
use super::{Registry, json, modules};
use std::collections::BTreeSet;

#[test]
fn every_message_has_the_crc_that_clients_look_up() {
    let registry = Registry::new(&modules());
    let ours: BTreeSet<String> = registry.messages().map(|(_, def)| def.key()).collect();
    let wanted: BTreeSet<String> = include_str!("crcs.txt").lines().map(str::to_owned).collect();
    let differ: Vec<_> = ours.symmetric_difference(&wanted).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn the_first_messages_have_the_numbers_that_clients_know() {
    let registry = Registry::new(&modules());
    for (id, name) in [(15, "sockclnt_create"), (16, "sockclnt_create_reply"), (23, "control_ping")] {
        assert_eq!(registry.def(id).unwrap().name, name);
    }
}

#[test]
fn every_request_is_documented_and_its_answer_is_declared() {
    for (module, _) in modules() {
        let has = |name: &str| module.messages.iter().any(|m| m.name == name);
        for message in module.messages {
            assert!(message.doc.trim().ends_with('.'), "{}: {:?}", message.name, message.doc);
            match message.role {
                Role::Call(reply) => assert!(has(reply), "{reply}"),
                Role::Dump(details) => assert!(has(details), "{details}"),
                Role::Get(details, reply) => assert!(has(details) && has(reply), "{details} {reply}"),
                Role::Silent | Role::Answer => {}
            }
        }
        let json = json::module(module);
        assert_eq!(json["messages"].as_array().unwrap().len(), module.messages.len());
    }
}
