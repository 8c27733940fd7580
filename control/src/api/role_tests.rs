//! What the role `read-only` may do: every command and every message, in a table that is looked at when one is added, and tried.

use super::registry::{After, Client, Cx, Left};
use super::schema::Role;
use super::server::Shared;
use super::testing::Loopback;
use crate::access::Rights;
use crate::cli::{Executor, Session};
use crate::commands::registry as commands;
use crate::config::Document;
use crate::config::tests::ALL;
use wharf_engine::wake::Waker;

/// The secret of `all.toml`.
const SECRET: &str = "open sesame";

fn lab() -> Loopback {
    let lab = Loopback::start().unwrap();
    lab.dataplane().apply_config(Document::parse(ALL).unwrap()).unwrap();
    lab
}

#[test]
fn the_table_says_who_may_what() {
    let mut table = String::new();
    for entry in &commands().unwrap().entries {
        let role = if entry.command.looks() { "looks" } else { "changes" };
        table += &format!("command {} {role}\n", entry.command.path.replace(' ', "-"));
    }
    let lab = Loopback::start().unwrap();
    for (_, def) in lab.registry().messages().filter(|(_, def)| def.role != Role::Answer) {
        table += &format!("message {} {}\n", def.name, if def.reads { "looks" } else { "changes" });
    }
    let known = include_str!("roles.txt");
    let new: Vec<&str> = table.lines().filter(|line| !known.lines().any(|known| known == *line)).collect();
    let gone: Vec<&str> = known.lines().filter(|line| !table.lines().any(|new| new == *line)).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new in roles.txt:\n{}\ngone:\n{}",
        new.join("\n"),
        gone.join("\n")
    );
}

#[test]
fn who_may_only_look_changes_nothing_by_commands_and_reads_no_secret() {
    let lab = lab();
    let before = lab.dataplane().config();
    let session = Session::detached(Rights::ReadOnly);
    for entry in &commands().unwrap().entries {
        let path = entry.command.path;
        for json in ["", " --json"] {
            let outcome = lab.shell().execute(&format!("{path}{json}"), &session);
            assert!(!outcome.text.contains(SECRET), "{path} shows a secret");
            let refused = outcome.error.is_some_and(|error| error.contains("not permitted"));
            assert_eq!(refused, !entry.command.looks(), "{path}");
        }
    }
    let shown = lab.shell().execute("config show", &session).text;
    assert!(shown.contains("secret = \"***\""), "{shown}");
    assert_eq!(lab.dataplane().config(), before);
}

/// Each request, with fields that are all zero, all ones, and numbers of what there is.
#[test]
fn who_may_only_look_changes_nothing_by_messages_and_reads_no_secret() {
    let lab = lab();
    let before = lab.dataplane().config();
    let registry = lab.registry();
    let mut client = Client { rights: Rights::ReadOnly, ..Client::default() };
    let mut shared = Shared { executor: lab.shell(), waker: Waker::new().unwrap() };
    for (id, def) in registry.messages().filter(|(_, def)| def.role != Role::Answer) {
        for fill in [0, 1, 2, 0xff] {
            let mut message = id.to_be_bytes().to_vec();
            message.extend([0; 8]);
            message.extend((0..1024).map(|at| if at % 4 == 3 || fill == 0xff { fill } else { 0 }));
            let mut out = Vec::new();
            let mut dataplane = lab.dataplane();
            let mut cx =
                Cx { dp: &mut dataplane, client: &mut client, registry, shared: &mut shared, out: &mut out };
            let after = registry.handle(&mut cx, &message);
            let refused = cx.out.windows(4).any(|part| part == (-30i32).to_be_bytes());
            match after {
                Ok(After::Rest(mut rest)) => while rest(&mut cx) == Left::More {},
                Ok(After::Job(job)) => {
                    drop(dataplane);
                    out.extend(job());
                }
                Ok(After::Done) | Err(_) => {}
            }
            let has = |secret: &[u8]| out.windows(secret.len()).any(|part| part == secret);
            assert!(!has(SECRET.as_bytes()), "{} tells a secret", def.name);
            if !def.reads && matches!(def.role, Role::Call(_) | Role::Get(..)) && fill == 0 {
                assert!(refused, "{} is not refused", def.name);
            }
        }
        assert_eq!(lab.dataplane().config(), before, "{} has changed something", def.name);
    }
}

#[test]
fn a_trace_of_requests_has_no_secret() {
    use super::modules::memif::MemifCreate;
    let mut lab = Loopback::start().unwrap();
    lab.command("api trace on").unwrap();
    lab.call(&MemifCreate {
        secret: SECRET.into(),
        ring_size: 1024,
        buffer_size: 2048,
        ..MemifCreate::default()
    })
    .unwrap();
    let text = lab.command("api trace dump").unwrap();
    assert!(
        text.contains("memif_create:") && text.contains("secret: ***") && !text.contains(SECRET),
        "{text}"
    );
    let saved = lab.dataplane().api_trace.save(lab.registry());
    assert!(!saved.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
}
