//! ICMP errors belong to the session of the packet that they quote.

use crate::common;
use crate::guard::{Guard, error, frame, udp};
use std::net::IpAddr;
use wharf_nodes::acl::{Action, Direction, Rule, Tuple};
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

/// A router on the way, which reports.
fn reporter(v6: bool) -> IpAddr {
    if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0x77]) } else { IpAddr::from([20, 9, 9, 9]) }
}

fn report(to: IpAddr, kind: u16, code: u16) -> Tuple {
    let v6 = to.is_ipv6();
    Tuple {
        src: reporter(v6),
        dst: to,
        protocol: if v6 { IpProtocol::ICMP6 } else { IpProtocol::ICMP },
        sport: kind,
        dport: code,
        flags: TcpFlags(0),
        has_ports: true,
    }
}

fn reversed(t: &Tuple) -> Tuple {
    Tuple { src: t.dst, dst: t.src, sport: t.dport, dport: t.sport, ..*t }
}

fn flow(v6: bool, protocol: IpProtocol, sport: u16) -> Tuple {
    let mut t = Tuple { protocol, ..udp(sport) };
    if v6 {
        t.src = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]);
        t.dst = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, 1]);
    }
    if protocol == IpProtocol::TCP {
        t.flags = TcpFlags::SYN;
    }
    if [IpProtocol::ICMP, IpProtocol::ICMP6].contains(&protocol) {
        (t.sport, t.dport) = (if v6 { 128 } else { 8 }, 0);
    }
    t
}

/// What interface 3 sends opens sessions; everything else is denied there.
fn guard(v6: bool) -> Guard {
    let mut guard = Guard::new(1024, 1024);
    let reflect = |protocol| Rule { protocol: IpProtocol(protocol), ..Rule::all(Action::Reflect, v6) };
    let mut icmp = reflect(if v6 { 58 } else { 1 });
    icmp.sport = if v6 { (128, 128) } else { (8, 8) };
    guard.set(3, Direction::Input, &[reflect(17), reflect(6), icmp]);
    guard.set(3, Direction::Output, &[Rule::all(Action::Deny, v6)]);
    guard
}

const ERRORS: [(bool, &[(u16, u16)]); 2] = [
    // Port unreachable, fragmentation needed, time exceeded, parameter problem: RFC 792.
    (false, &[(3, 3), (3, 4), (11, 0), (12, 0)]),
    // Unreachable, packet too big, time exceeded, parameter problem: RFC 4443.
    (true, &[(1, 4), (2, 0), (3, 0), (4, 1)]),
];

#[test]
fn errors_about_a_session_pass_both_ways_and_others_do_not() {
    for (v6, errors) in ERRORS {
        let icmp = if v6 { IpProtocol::ICMP6 } else { IpProtocol::ICMP };
        for protocol in [IpProtocol::UDP, IpProtocol::TCP, icmp] {
            let mut guard = guard(v6);
            let there = flow(v6, protocol, 7);
            let quote = frame(&there, true)[14..].to_vec();
            let back = frame(&reversed(&there), true)[14..].to_vec();
            let dst = there.dst;
            for (kind, code) in errors {
                let before = error(&report(there.src, *kind, *code), &quote);
                assert!(!guard.passes(4, &before, 3), "no session yet: {kind} {protocol:?}");
            }
            assert!(guard.passes(3, &frame(&there, true), 4));
            for (kind, code) in errors {
                let to_sender = error(&report(there.src, *kind, *code), &quote);
                assert!(guard.passes(4, &to_sender, 3), "{kind} {protocol:?}");
                if protocol != icmp {
                    let to_peer = error(&report(dst, *kind, *code), &back);
                    assert!(guard.passes(3, &to_peer, 4), "{kind} {protocol:?}, the other way");
                }
                let to_other = error(&report(reporter(v6), *kind, *code), &quote);
                assert!(!guard.passes(4, &to_other, 3), "not to who sent the packet");
                // A session has two directions; the quoted packet went the wrong one.
                assert!(!guard.passes(4, &error(&report(dst, *kind, *code), &back), 3));
            }
            if protocol != icmp {
                let stranger = frame(&Tuple { sport: 8, ..there }, true)[14..].to_vec();
                let (kind, code) = errors[0];
                assert!(!guard.passes(4, &error(&report(there.src, kind, code), &stranger), 3));
            }
            // A redirect (RFC 792; RFC 4861 section 4.5) is no error.
            let redirect = error(&report(there.src, if v6 { 137 } else { 5 }, 0), &quote);
            assert!(!guard.passes(4, &redirect, 3));
        }
    }
}

#[test]
fn a_quote_may_end_behind_the_ports() {
    for (v6, errors) in ERRORS {
        let mut guard = guard(v6);
        let there = flow(v6, IpProtocol::TCP, 7);
        let quote = frame(&there, true)[14..].to_vec();
        assert!(guard.passes(3, &frame(&there, true), 4));
        let enough = if v6 { 48 } else { 28 };
        for len in 0..=quote.len() {
            let (kind, code) = errors[0];
            let bytes = error(&report(there.src, kind, code), &quote[..len]);
            assert_eq!(guard.passes(4, &bytes, 3), len >= enough, "{len}");
        }
        // A later fragment has no ports.
        let fragment = frame(&Tuple { has_ports: false, ..there }, true)[14..].to_vec();
        assert!(!guard.passes(4, &error(&report(there.src, 3, 0), &fragment), 3));
    }
}

#[test]
fn an_error_ends_with_its_session() {
    let mut guard = guard(false);
    let there = flow(false, IpProtocol::UDP, 7);
    let bytes = error(&report(there.src, 3, 3), &frame(&there, true)[14..]);
    assert!(guard.passes(3, &frame(&there, true), 4) && guard.passes(4, &bytes, 3));
    guard.set(3, Direction::Input, &[Rule::all(Action::Deny, false)]);
    // Something that reflects is needed for sessions to be looked at.
    guard.set(
        3,
        Direction::Output,
        &[Rule { protocol: IpProtocol::TCP, ..Rule::all(Action::Reflect, false) }],
    );
    assert!(!guard.passes(4, &bytes, 3));
}

#[test]
fn errors_on_routed_paths() {
    let mut guard = Guard::new(1024, 1024);
    let reflect = Rule { protocol: IpProtocol::UDP, ..Rule::all(Action::Reflect, false) };
    guard.set(1, Direction::Input, &[reflect]);
    guard.set(1, Direction::Output, &[Rule::all(Action::Deny, false)]);
    let there = flow(false, IpProtocol::UDP, 7);
    let mut bytes = error(&report(there.src, 11, 0), &frame(&there, true)[14..]);
    bytes[..6].copy_from_slice(&common::MAC[2].0);
    assert!(!guard.passes(2, &bytes, 1));
    assert!(guard.passes(1, &frame(&there, true), 2));
    assert!(guard.passes(2, &bytes, 1));
    let about_back = error(&report(there.dst, 3, 1), &frame(&reversed(&there), true)[14..]);
    assert!(guard.passes(1, &about_back, 2));
}
