//! A [`Port`] against a port, over the loss of either.

use std::os::fd::AsFd;

use super::*;
use crate::{InterfaceConfig, Port, PortEvent};

fn server(config: ListenerConfig) -> Port {
    Port::server(config, InterfaceConfig::new(0, "port")).unwrap()
}

/// Waits on both in turn until `done`.
fn turns(a: &mut Port, b: &mut Port, mut done: impl FnMut(&mut Port, &mut Port) -> bool) -> Vec<PortEvent> {
    let (limit, mut events) = (Instant::now() + Duration::from_secs(10), Vec::new());
    while !done(a, b) {
        assert!(Instant::now() < limit, "{events:?}");
        for port in [&mut *a, &mut *b] {
            events.extend(port.wait(Some(Duration::from_millis(1))).unwrap());
        }
    }
    events
}

fn both_up(a: &mut Port, b: &mut Port) -> bool {
    a.link().is_some() && b.link().is_some()
}

#[test]
fn ports_connect_again() {
    let config = listener_config();
    let mut a = server(config.clone());
    let mut b = Port::client(ClientConfig::new(config.address.clone(), 0)).unwrap();
    let events = turns(&mut a, &mut b, both_up);
    assert_eq!(events, [PortEvent::Up, PortEvent::Up]);
    send(&mut a.link().unwrap().tx[0], &[bytes(1, 60)]);
    a.link().unwrap().tx[0].kick();
    assert_eq!(b.wait(None).unwrap(), None, "packets wake it");
    assert_eq!(drain(&mut b.link().unwrap().rx[0]), [bytes(1, 60)]);

    // The client ends it and comes again.
    b.disconnect("for a change");
    let events = turns(&mut a, &mut b, |a, b| a.link().is_none() || b.link().is_none());
    assert!(events.iter().any(|e| matches!(e, PortEvent::Down(_))), "{events:?}");
    turns(&mut a, &mut b, both_up);

    // The server goes; the client says why it can't connect, and connects to the next one.
    drop(a);
    let mut failed = false;
    let limit = Instant::now() + Duration::from_secs(10);
    while !failed {
        assert!(Instant::now() < limit);
        failed = matches!(b.wait(None).unwrap(), Some(PortEvent::Failed(_)));
    }
    let mut a = server(config);
    turns(&mut a, &mut b, both_up);
    send(&mut b.link().unwrap().tx[0], &[bytes(2, 60)]);
    b.link().unwrap().tx[0].kick();
    assert_eq!(a.wait(None).unwrap(), None);
    assert_eq!(drain(&mut a.link().unwrap().rx[0]), [bytes(2, 60)]);
}

/// An owner with a loop of its own: the descriptor tells of packets only while armed, and of the peer always.
#[test]
fn one_descriptor_tells_everything() {
    let config = listener_config();
    let mut a = server(config.clone());
    let mut b = Port::client(ClientConfig::new(config.address.clone(), 0)).unwrap();
    turns(&mut a, &mut b, both_up);
    let readable = |port: &Port| {
        let fd = port.fd();
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&at_once)).unwrap() == 1
    };
    let say = |a: &mut Port| {
        send(&mut a.link().unwrap().tx[0], &[bytes(1, 60)]);
        a.link().unwrap().tx[0].kick();
    };
    say(&mut a);
    assert!(!readable(&b) && !b.arm(), "there is work, so don't sleep");
    drain(&mut b.link().unwrap().rx[0]);
    assert!(b.arm() && !readable(&b));
    say(&mut a);
    assert!(readable(&b));
    b.disarm();
    assert!(!readable(&b));
    // The peer keeps the eventfd of a connection that is no more, and goes on filling it.
    let eventfd = b.link().unwrap().rx[0].fd().as_fd().try_clone_to_owned().unwrap();
    drop(a);
    assert!(readable(&b));
    assert!(matches!(b.process(Instant::now()), Some(PortEvent::Down(_))));
    rustix::io::write(&eventfd, &1u64.to_ne_bytes()).unwrap();
    assert!(!readable(&b));
}
